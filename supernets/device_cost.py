"""What architectures of a space cost on a device: exactly, and as a sum over options for gates."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.device_table import additive, device_table, is_device_table
from supernets.final_costs import Cost, final_costs
from supernets.latency_table import latency_cost
from supernets.network import check_costs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceCost:
    """The cost of a space's networks on a device.

    kind: `latency_ms`, or `macs` without a table. options: what each option adds; with a table of
    whole architectures an additive model of it. exact: the cost of one architecture. r2: of
    `options`; 1 if the table is one of options, so that sums are exact.
    """

    kind: str
    device: str
    options: Cost
    exact: Callable[[Architecture], float]
    r2: float = 1.0

    @property
    def adds_up(self) -> bool:
        """Whether the exact cost is the sum over the options."""
        return self.r2 == 1.0


def device_cost(space: Space, table: str | None, device: str | None = None) -> DeviceCost:
    """The cost on a device.

    Args:
        table: a file of task=measure_latency, or one of whole NAS-Bench-201 architectures with a
            column per device. None counts multiply-accumulates.
        device: the column; None where there is only one.

    Raises:
        ValueError: a file that is no such table or does not fit the space, an unknown device, or a
            space in which costs of options do not add up.
    """
    if table is not None and is_device_table(Path(table)):
        known = device_table(Path(table))
        model, r2 = additive(space, known, device)
        name = known.devices[known.column(device)]
        log.info("latency: a sum over options explains %.1f%% of %s (R2)", 100 * r2, name)
        return DeviceCost("latency_ms", name, model, lambda one: known.of(one, name), min(r2, NEAR))
    if device is not None:
        raise ValueError(
            f"device: '{device}' is one of a table of whole architectures with a column per "
            "device; leave it out"
        )
    check_costs(space)
    if table is None:
        return _sum("macs", "any device", final_costs(space)["macs"], space)
    return _sum("latency_ms", Path(table).stem, latency_cost(space, Path(table)), space)


NEAR = 1 - 1e-12  # R2 of a model that happens to be exact: architectures are looked up all the same


def _sum(kind: str, name: str, cost: Cost, space: Space) -> DeviceCost:
    return DeviceCost(kind, name, cost, lambda one: cost.of(one, space))


def device_costs(
    space: Space, table: str | None, devices: Sequence[str] | None
) -> dict[str, DeviceCost]:
    """Device -> its cost; `devices` None: all columns of the table. Raises as `device_cost`."""
    if devices is None and table is not None and is_device_table(Path(table)):
        devices = device_table(Path(table)).devices
    found = [device_cost(space, table, device) for device in devices or [None]]
    return {one.device: one for one in found}
