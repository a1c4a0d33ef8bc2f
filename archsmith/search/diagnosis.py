"""Early indicators of a search's health: how decided the gates are, which candidates are kept.

Source: Zela et al. 2020, arXiv:1909.09656 (skip connections as a symptom of collapse).
"""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from search_spaces.architecture import Architecture, reachable
from search_spaces.space import Space

LONGER = "search longer, or lower strategy.alpha_optimizer.lr"

DECIDED = 0.98  # share of the largest entropy: gates then deviate by about a third


def diagnose(
    space: Space, gates: Mapping[str, Tensor], alive: Mapping[str, Tensor], found: Architecture
) -> dict[str, float]:
    """Means over undecided edges: `gate_entropy` (1 uniform, 0 one-hot) and `gate_margin`.

    gates, alive (E, O) per group. An edge is undecided if several candidates are alive. Entropy is
    divided by the log of their number; the margin is the largest minus the second largest share.
    `skips` and `pools` count kept candidates of that kind, `nones` the edges on which `none` has
    the largest gate.
    """
    entropies, margins, nones = [], [], 0
    for group, cell in space.groups.items():
        for row, on, edge in zip(gates[group], alive[group].cpu(), cell.edges, strict=True):
            shares = row[on] / row[on].sum().clamp_min(1e-12)
            names = [name for name, living in zip(edge.candidates, on, strict=False) if living]
            if len(names) > 1:
                entropy = float(torch.special.entr(shares).sum()) / math.log(len(names))
                first, second = shares.topk(2).values.tolist()
                entropies.append(entropy)
                margins.append(first - second)
            nones += bool(names) and names[int(shares.argmax())] == "none"
    kept = kept_candidates(found)
    return {
        "gate_entropy": sum(entropies) / max(1, len(entropies)),
        "gate_margin": sum(margins) / max(1, len(margins)),
        "skips": sum("skip" in name for name in kept),
        "pools": sum("pool" in name for name in kept),
        "nones": nones,
    }


def kept_candidates(found: Architecture, groups: Collection[str | None] = ()) -> list[str]:
    """All kept candidates of these groups (or of all groups), group by group."""
    return [
        name
        for group, edges in found.choices.items()
        if not groups or group in groups
        for kept in edges.values()
        for name in kept
    ]


def degenerate(space: Space, found: Architecture) -> str | None:
    """A warning with a remedy for an architecture that cannot learn much, or None."""
    said = [_cut_off(space, found), _reconnected(found), _parameter_free(space, found)]
    return "; ".join(line for line in said if line) or None


def _cut_off(space: Space, found: Architecture) -> str | None:
    for group, cell in space.groups.items():
        if not reachable(cell, found.choices[group]):
            return f"'{group}' is cut off: its output does not depend on its input; {LONGER}"
    return None


def _reconnected(found: Architecture) -> str | None:
    groups = found.meta.get("reconnected")
    if not groups:
        return None
    names = ", ".join(f"'{group}'" for group in groups)
    return (
        f"'none' won so many edges that {names} would be cut off, output from input: the best cell "
        f"that is not was taken in its place, by the sum of log gates; {LONGER}"
    )


def _parameter_free(space: Space, found: Architecture) -> str | None:
    normal = {layer.group for layer in space.layers if not layer.reduction} & set(space.groups)
    kept = kept_candidates(found, normal or set(space.groups))
    if kept and all("skip" in name or "pool" in name for name in kept):
        what = "skip connections" if all("skip" in name for name in kept) else "skips and pools"
        return (
            f"collapse: every kept candidate is parameter-free ({what}), but for what a reduction "
            "cell may hold. Plain DARTS often ends "
            "so, and a pruning search whose price is too high (strategy.losses.gate_cost.mu); "
            "strategies that counter it: pcdarts, sddarts, drnas, gdas"
        )
    return None


def undecided(
    space: Space, alive: Mapping[str, Tensor], found: Architecture, entropy: float
) -> str | None:
    """A warning if the gates exceed that share of the largest entropy, else None.

    alive (E, O) per group. If everything alive is kept, pruning has decided and not the gates.
    """
    kept = sum(len(names) for edges in found.choices.values() for names in edges.values())
    left = sum(
        int(on[o])
        for group, cell in space.groups.items()
        for on, edge in zip(alive[group].cpu(), cell.edges, strict=True)
        for o, name in enumerate(edge.candidates)
        if name != "none"
    )
    if entropy <= DECIDED or kept == left:
        return None
    return (
        f"the gates are undecided ({entropy:.3f} of the largest entropy), so the cells are close "
        "to a draw; search longer (search.epochs), or with larger steps of the alphas "
        "(strategy.alpha_lr_scale), and compare with strategy=random"
    )
