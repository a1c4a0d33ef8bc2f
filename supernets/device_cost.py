"""What architectures of a space cost on a device: exactly, and as a sum over options for gates."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.settings import setting
from search_spaces.space import Space
from supernets.device_table import DeviceTable, additive, device_table, is_device_table
from supernets.final_costs import Cost, final_costs
from supernets.latency_table import latency_cost
from supernets.network import check_costs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceCost:
    """The cost of a space's networks on a device.

    kind: `latency_ms`, or `macs` without a table. options: what each option adds; with a table of
    whole architectures an additive model of it. exact: the cost of one architecture. adds_up:
    whether that is the sum over its options. r2: of the sums, over all architectures.
    """

    kind: str
    device: str
    options: Cost
    exact: Callable[[Architecture], float]
    adds_up: bool
    r2: float = 1.0


def device_costs(
    space: Space, table: str | None, devices: Sequence[str] | None = None
) -> dict[str, DeviceCost]:
    """Device -> its cost.

    Args:
        table: a file of task=measure_latency, or one of whole NAS-Bench-201 architectures with a
            column per device. None counts multiply-accumulates.
        devices: the columns; None: all.

    Raises:
        ValueError: a file that is no such table or does not fit the space, an unknown device, or a
            space in which costs of options do not add up.
    """
    if table is not None and is_device_table(Path(table)):
        return _looked_up(space, device_table(Path(table)), devices)
    if devices is not None:
        raise ValueError(
            f"device: {', '.join(devices)}: only a table of whole architectures has a column per "
            "device; leave it out"
        )
    check_costs(space)
    if table is None:
        kind = name = "macs"
        cost = final_costs(space)[kind]
    else:
        kind, name = "latency_ms", Path(table).stem
        with setting("table"):
            cost = latency_cost(space, Path(table))
    return {name: DeviceCost(kind, name, cost, lambda one: cost.of(one, space), adds_up=True)}


def device_cost(space: Space, table: str | None, device: str | None) -> DeviceCost:
    """The cost on one device; None is the only one of the table. Raises as `device_costs`."""
    found = device_costs(space, table, None if device is None else [device])
    if len(found) > 1:
        raise ValueError(f"device: {table} has several, name one of {', '.join(found)}")
    return next(iter(found.values()))


def _looked_up(
    space: Space, table: DeviceTable, devices: Sequence[str] | None
) -> dict[str, DeviceCost]:
    """The costs of columns of a table of whole architectures."""
    names = table.devices if devices is None else tuple(devices)
    for name in names:
        table.column(name)
    models, found = additive(space, table), {}
    for name in names:
        model, r2 = models[name]

        def exact(one: Architecture, name: str = name) -> float:
            return table.of(one, name)

        found[name] = DeviceCost("latency_ms", name, model, exact, adds_up=False, r2=r2)
    worst, best = (pick(found.values(), key=lambda one: one.r2) for pick in (min, max))
    log.info(
        "latency: sums over options explain %.1f%% (%s) to %.1f%% (%s) of the variance (R2)",
        100 * worst.r2, worst.device, 100 * best.r2, best.device,
    )  # fmt: skip
    return found


def features(measured: Sequence[Architecture], costs: Sequence[DeviceCost]) -> Tensor:
    """(D, F): the costs of architectures on each device, with mean 0 and deviation 1."""
    found = torch.tensor([[cost.exact(one) for one in measured] for cost in costs])
    deviation = found.std(1, correction=0, keepdim=True)
    return (found - found.mean(1, keepdim=True)) / deviation.clamp_min(1e-12)
