"""Searchers with two objectives: the score, and the cost on one or several devices."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from search_spaces.architecture import Architecture
from search_spaces.settings import Count
from search_spaces.space import Space
from strategies.fronts import front
from strategies.searchers.encoding import Draws, Kept
from strategies.searchers.searcher import Searcher
from supernets.device_cost import DeviceCost, device_costs

Key = tuple[tuple[str, str, tuple[str, ...]], ...]


class Known(NamedTuple):
    """An architecture that was scored: what it keeps, its score, and device -> its cost."""

    kept: Kept
    score: float
    costs: dict[str, float]


def key_of(kept: Kept) -> Key:
    """What tells architectures apart."""
    return tuple((name, row, kept[name][row]) for name in kept for row in sorted(kept[name]))


class OnDevices(Searcher):
    """A searcher that keeps all it was told, and ends with a front per device.

    Costs are known without a question: only scores are asked for.

    Args:
        table: latencies, as `device_cost` takes them; None counts multiply-accumulates.
        devices: columns of the table; None: all.

    Raises:
        ValueError: as `device_cost`.
    """

    def __init__(
        self, space: Space, asks: Count | None, table: str | None, devices: Sequence[str] | None
    ):
        super().__init__(space, asks)
        self.costs: dict[str, DeviceCost] = device_costs(space, table, devices)
        self.draws = Draws(space)
        self.known: list[Known] = []
        self.keys: set[Key] = set()

    def new(self) -> Architecture:
        """A random architecture, if possible one that was not told yet."""
        for _ in range(self.draws.ATTEMPTS):
            found = self.draws.answer()
            if key_of(found.kept) not in self.keys:
                break
        return self.draws.architecture(found)

    def tell(self, architecture: Architecture, score: float) -> None:
        costs = {name: cost.exact(architecture) for name, cost in self.costs.items()}
        self.known.append(Known(architecture.choices, score, costs))
        self.keys.add(key_of(architecture.choices))

    def points(self, device: str) -> np.ndarray:
        """(N, 2): cost on a device, and 1 - score, of all that was told."""
        return np.array([(k.costs[device], 1 - k.score) for k in self.known]).reshape(-1, 2)

    def fronts(self) -> dict[str, list[Known]]:
        """Device -> what no other known one dominates, the cheapest first."""
        return {name: [self.known[i] for i in front(self.points(name))] for name in self.costs}

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self.draws.source.getstate(),
            "known": [[dict(one.kept), one.score, one.costs] for one in self.known],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if costs are no longer those that the search began with."""
        for kept, _, costs in state["known"]:
            one = Architecture.of(self.space, kept)
            if {name: cost.exact(one) for name, cost in self.costs.items()} != costs:
                raise ValueError(
                    "table: it has other devices, or other latencies than the search began with; "
                    "restore it"
                )
        self.draws.source.setstate(state["random"])
        self.known = [Known(kept, float(score), costs) for kept, score, costs in state["known"]]
        self.keys = {key_of(one.kept) for one in self.known}
