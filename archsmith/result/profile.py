"""What networks a trained network can become: costs of the smallest, middle and largest."""

from collections.abc import Mapping
from typing import Any

import torch

from archsmith.result.fit_rising import RisingFit
from archsmith.result.latency import measure_latency
from archsmith.result.limits import Budget
from archsmith.result.recipe import Recipe
from search_spaces.space import Space
from supernets.network import final_network

NETWORKS = {"smallest": 0.0, "middle": 0.5, "largest": 1.0}


def profile(space: Space, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """`groups`, `architectures`, and of each network in `NETWORKS` its params, macs and the latency
    of one image in ms. The random generators are left unchanged."""
    fit = RisingFit(Budget(), space, recipe, device)
    found: dict[str, Any] = {}
    for name, share in NETWORKS.items():
        architecture = fit.network_at(share)
        with torch.random.fork_rng(devices=[]):
            net = final_network(fit.final, architecture)
        latency = measure_latency(net, device, 1)
        found[name] = {**fit.cost(architecture), "latency_ms": round(latency.median, 3)}
    rows = [row for choice in space.choices.values() for row in choice.rows]
    number = 1
    for row in rows:
        number *= len(row.options)
    return {"groups": len(rows), "architectures": number, "networks": found}


def profile_lines(told: Mapping[str, Any]) -> list[str]:
    """The profile as lines of text, with the budgets that can be met."""
    nets = told["networks"]
    lines = [f"{told['groups']} groups of channels, {shown_count(told['architectures'])} networks"]
    lines += [
        f"{name:<9} {one['params']:>14,} parameters {one['macs']:>16,} multiply-accumulates "
        f"{one['latency_ms']:>9.3g} ms"
        for name, one in nets.items()
    ]
    ends = nets["smallest"], nets["largest"]
    met = [
        f"budget.{kind} {' to '.join(f'{end[kind]:,}' for end in ends)}"
        for kind in ("params", "macs")
    ]
    return [*lines, f"can be met: {', '.join(met)}"]


def shown_count(number: int) -> str:
    """`4,096`, or `2.5e+28` from a million on."""
    return f"{number:,}" if number < 1_000_000 else f"{number:.2g}"
