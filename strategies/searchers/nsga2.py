"""NSGA-II on one device: score and cost by non-dominated sorting and crowding distance.

Source: Deb et al. 2002, doi:10.1109/4235.996017, section III.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from search_spaces.architecture import Architecture
from search_spaces.settings import Count, Range, checked
from search_spaces.space import Space
from strategies.fronts import crowding, ranks
from strategies.searchers.encoding import Answer, Decision, Taken
from strategies.searchers.on_devices import OnDevices, key_of


class NSGA2(OnDevices):
    """The first `population` architectures are random. Then as many children are asked for: two
    parents by binary tournaments (lower rank, then larger crowding distance), every decision of
    either with equal probability, one of them changed with probability `mutation`. The best half of
    parents and children, by rank and crowding distance, is the next population. `alpha_lr_scale` is
    unused.

    The operators fit decisions that are named, not real numbers [ours]. A child that was told
    before is changed until it was not [ours]: a question for it would be wasted.

    Args:
        table, device: the latencies, and their column; None counts multiply-accumulates.
    """

    @checked
    def __init__(
        self,
        space: Space,
        alpha_lr_scale: float | None = None,
        asks: Count | None = None,
        table: str | None = None,
        device: str | None = None,
        population: Count = 20,
        mutation: Annotated[float, Range(ge=0, le=1)] = 0.9,
    ):
        super().__init__(space, asks, table, None if device is None else [device])
        if len(self.costs) > 1:
            raise ValueError(f"device: name one of {', '.join(self.costs)}")
        self.size, self.mutation = population, mutation
        self.parents: list[int] = []  # positions in `known`
        self.seen = 0  # of `known`, when the parents were chosen

    def ask(self) -> Architecture:
        """A random architecture, or a child."""
        if len(self.known) < self.size:
            return self.new()
        if not self.parents or len(self.known) - self.seen >= self.size:
            self._select()
        return self.draws.architecture(self._child())

    def _points(self) -> np.ndarray:
        (device,) = self.costs
        return self.points(device)

    def _order(self, members: list[int]) -> list[int]:
        """Members, best first: by rank, then by crowding distance within it."""
        points = self._points()[members]
        rank, crowd = ranks(points), np.zeros(len(points))
        for one in set(rank.tolist()):
            crowd[rank == one] = crowding(points[rank == one])
        return [members[i] for i in np.lexsort((-crowd, rank))]

    def _select(self) -> None:
        """The best of parents and children, best first."""
        members = [*self.parents, *range(self.seen, len(self.known))]
        self.parents, self.seen = self._order(members)[: self.size], len(self.known)

    def _child(self) -> Answer:
        """A child of two winners of tournaments that was not told yet, if one is found."""
        first, second = self._winner(), self._winner()

        def pick(decision: Decision) -> int:
            parent = first if self.draws.chance(0.5) else second
            at, count = parent.get(decision.name, len(decision.values)), len(decision.values)
            return at if at < count else self.draws.below(count)

        child = self.draws.traverse(pick)
        if self.draws.chance(self.mutation) or not self.draws.connects(child):
            child = self.draws.mutated(child.taken)
        for _ in range(self.draws.ATTEMPTS):
            if key_of(child.kept) not in self.keys:
                break
            child = self.draws.mutated(child.taken)
        return child

    def _winner(self) -> Taken:
        """The decisions of the better of two drawn parents, which stand in order."""
        place = min(self.draws.below(len(self.parents)) for _ in range(2))
        return self.draws.of(self.known[self.parents[place]].kept)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"parents": self.parents, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.parents, self.seen = list(state["parents"]), int(state["seen"])
