"""Prunes candidates with a small share. GOLD-NAS, Bi et al. 2020, arXiv:2007.03331.

This is the intended rule: the public code only ever cuts edges from a cell's first input.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from torch import Tensor

from search_spaces.choice import Choice
from search_spaces.settings import NotNegative, Range, Share
from strategies.contracts import Pruning
from strategies.pruning.release import release
from strategies.shares import real_options

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network

Choices = Mapping[str, Choice]
Tables = Mapping[str, Tensor]  # choice -> (R, O)
Place = tuple[str, int, int]  # choice, row, option


def survive(
    choices: Choices,
    gates: Tables,
    alive: Tables,
    *,
    minimum: float,
    maximum: float,
    most: int,
    at_once: int,
) -> dict[str, Tensor]:
    """The candidates that stay alive: choice -> (R, O) bool.

    The smallest share is cut repeatedly, at most `at_once` times: as long as it is <= `minimum`,
    then up to `most` times while it is <= `maximum`. A share is a gate divided by the mean alive
    gate into its node, recomputed after each cut; in a tie the first is cut. A node's last
    candidate is never cut.
    """
    left = {name: table.clone() for name, table in alive.items()}
    nodes = _nodes(choices, gates, alive)
    for _ in range(at_once):
        table = [
            (gate * len(node) / (sum(node.values()) or 1.0), node, place)
            for node in nodes
            if len(node) > 1
            for place, gate in node.items()
        ]
        if not table:
            return left
        share, node, (name, r, o) = min(table, key=lambda row: row[0])
        if share > minimum:
            most -= 1
        if share > maximum or most < 0:
            return left
        del node[name, r, o]
        left[name][r, o] = False
    return left


def _nodes(choices: Choices, gates: Tables, alive: Tables) -> list[dict[Place, float]]:
    """For each target of each choice, the gates of the alive candidates into it."""
    return [
        {
            (name, r, o): float(gates[name][r, o])
            for r in into
            for o in alive[name][r].nonzero().flatten().tolist()
        }
        for name, choice in choices.items()
        for into in map(choice.into, choice.targets)
    ]


class ShareThreshold(Pruning):
    """At the end of each epoch, cuts candidates with a small share of their node's gates.

    A share is a gate relative to the node's mean gate: 1 if all are equal, whatever their number.
    The public code divides by the sum, and its limits suit the ten candidates of its largest node;
    relative to the mean they apply to every space.

    `none` is dead from the start: with gates that do not compete it has no effect, and no node may
    be left with only `none`. Weights of cut candidates leave their optimiser. The search stops when
    every node has one candidate left, or every edge at most one if the space keeps all edges.

    Args:
        minimum: shares up to this are cut immediately (eta_min, times 10).
        maximum: shares above this are never cut (eta_max, times 10).
        most: of the shares between, the smallest are cut: in a whole search this share of all
            candidates, evenly over the epochs, at least 1 per epoch (n0).
        gradual: largest share of the alive candidates that is cut in one epoch, at least 1. Not in
            the paper, which has many epochs; a short search could cut everything in one.

    Raises:
        ValueError: anything but 0 <= minimum <= maximum < 1, 0 <= most and 0 < gradual <= 1.
    """

    def __init__(
        self,
        *,
        minimum: Share,
        maximum: Share,
        most: NotNegative,
        gradual: Annotated[float, Range(gt=0, le=1)],
    ):
        if minimum > maximum:
            raise ValueError(f"minimum: expected at most {maximum=}, found {minimum}")
        self.minimum, self.maximum, self.most, self.gradual = minimum, maximum, most, gradual

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.progress = 0.0
        real = {name: real_options(choice) for name, choice in strategy.space.choices.items()}
        self.candidates = sum(int(table.sum()) for table in real.values())
        self._prune(net, strategy, real)

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> bool:
        epoch, self.progress = progress - self.progress, progress
        if not strategy.moving:
            return False
        choices = strategy.space.choices
        alive = {name: table.cpu() for name, table in strategy.alive.items()}
        left = survive(
            choices,
            strategy.gates(),
            alive,
            minimum=self.minimum,
            maximum=self.maximum,
            most=max(1, round(self.most * self.candidates * epoch)) if self.most else 0,
            at_once=max(1, int(self.gradual * sum(int(table.sum()) for table in alive.values()))),
        )
        self._prune(net, strategy, left)
        return all(_decided(choice, left[name]) for name, choice in choices.items())

    def _prune(self, net: "Network", strategy: "Strategy", left: Tables) -> None:
        strategy.prune({n: table.to(strategy.alive[n].device) for n, table in left.items()})
        release(net, strategy)

    def state_dict(self) -> dict[str, Any]:
        return {"progress": self.progress}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.progress = state["progress"]


def _decided(choice: Choice, left: Tensor) -> bool:
    """Whether nothing is left to choose; left (R, O) bool."""
    if choice.keep is None:
        return int(left.sum(1).max()) <= 1
    return int(left.sum()) == len(choice.targets)
