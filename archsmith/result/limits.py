"""Limits on the cost of the final network: parameters, multiply-accumulates, latency."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.settings import Count, checked

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
NAMES = {"params": "parameters", "macs": "multiply-accumulates", "latency_ms": "ms"}


@checked
@dataclass(frozen=True)
class Budget:
    """The limits; None means no limit.

    Args:
        params, macs: a number, optionally with the suffix k, M or G: `300k`, `1.5M`, `2G`.
        latency_ms: of a forward pass of `latency_batch` images, measured on the run's device; with
            a table, the latency that it gives.
        latency_table: latencies of another device (`supernets.device_cost`): of options, or of
            whole architectures with a column per device, of which `latency_device` names one.

    Raises:
        ValueError: anything else.
    """

    params: Any = None
    macs: Any = None
    latency_ms: Any = None
    latency_batch: Count = 1
    latency_table: str | None = None
    latency_device: str | None = None

    def __post_init__(self) -> None:
        for kind in NAMES:
            value = getattr(self, kind)
            if value is not None:
                object.__setattr__(self, kind, _amount(kind, value))

    @property
    def limits(self) -> dict[str, float]:
        """Kind -> limit, for those that are set."""
        given = {kind: getattr(self, kind) for kind in NAMES}
        return {kind: limit for kind, limit in given.items() if limit is not None}


def _amount(kind: str, value: Any) -> float:
    text = str(value).strip().lower()
    found = re.fullmatch(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)([kmg]?)", text)
    amount = float(found[1]) * UNITS[found[2]] if found and not isinstance(value, bool) else 0.0
    if not 0 < amount < math.inf or (found and found[2] and kind == "latency_ms"):
        known = "milliseconds" if kind == "latency_ms" else "a number, or one as 300k, 1.5M, 2G"
        raise ValueError(f"{kind}: expected {known}, above 0; found {value!r}")
    return amount


def shown_amount(kind: str, amount: float) -> str:
    """`12.3k`, `1.5M`; for a latency `0.81`. Rounded up, so that as a limit it can be met."""
    if kind == "latency_ms":
        return f"{math.ceil(amount * 100) / 100:g}"
    unit = next((u for u in "GMk" if amount >= UNITS[u.lower()]), "")
    scaled = amount / UNITS[unit.lower()]
    digits = max(0, 3 - len(str(int(scaled)))) if unit else 0
    return f"{math.ceil(round(scaled * 10**digits, 6)) / 10**digits:g}{unit}"


def budget_line(told: Mapping[str, Any]) -> str:
    """The budget entry of `results.json` in one line."""
    parts = [
        f"{told['cost'][kind]:,.2f} of {limit:g} ms"
        if kind == "latency_ms"
        else f"{told['cost'][kind]:,.0f} of {limit:,.0f} {NAMES[kind]}"
        for kind, limit in told["limits"].items()
    ]
    changed = len(told.get("given_up", ()))
    rows = f"{changed} row{'s' * (changed > 1)}"
    return f"budget: {', '.join(parts)}" + (f"; {rows} changed for it" if changed else "")


def changed_rows(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that a budget changed, from the budget entry of `results.json`: their `choice`,
    their `row`, and what they kept without it (`was`) and within it (`is`).

    Until version 0.1.0 a choice was written as `group` and a row as `edge`.
    """
    now = {"group": "choice", "edge": "row"}
    return [
        {now.get(key, key): value for key, value in row.items()} for row in told.get("given_up", ())
    ]
