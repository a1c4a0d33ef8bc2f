"""Improves a given architecture, and stops when the search keeps its distance from it. DARTOpti.

Source: the public code of Heuillet et al. 2021, arXiv:2108.09306; the text of the paper could not
be read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.distance import distance
from search_spaces.genotype import published
from search_spaces.layers import laid_out
from search_spaces.settings import Count, NotNegative, Positive
from search_spaces.space import Space
from strategies.contracts import Stopping

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network


class Settled(Stopping):
    """Alphas start at `alpha` for the options of the start, and at 0 for the others.

    Stops after `epochs` epochs in a row in which the found architecture's distance from the start
    changed by at most `tolerance`. Epochs do not count while alphas stand still or the distance is
    0: ours, as the search has not left its start yet.

    Args:
        start: an architecture file, a run directory, or a published name; its cells are laid out on
            the layers of the space. None: in each cell, a residual block from the space's options.
        alpha: the initial alpha of its options.

    Raises:
        ValueError: there is no such architecture, or it does not fit the space.
    """

    def __init__(
        self, *, start: str | None, alpha: Positive, tolerance: NotNegative, epochs: Count
    ):
        self.given, self.alpha = start, alpha
        self.tolerance, self.epochs = tolerance, epochs

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.start = start_of(self.given, strategy.space)
        self.distance, self.unchanged, self.move = 0.0, 0, False
        for name, kept in self.start.kept(strategy.space).items():
            table = torch.zeros(strategy.alphas[name].shape)
            for row, options in enumerate(kept):
                table[row, options] = self.alpha
            strategy.alphas[name].data.copy_(table)
        self.moves = strategy.alphas_move

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.move = self.moves(epoch, epochs)

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> bool:
        before, self.distance = self.distance, self._now(strategy)
        still = abs(self.distance - before) <= self.tolerance
        self.unchanged = self.unchanged + 1 if self.move and self.distance and still else 0
        return self.unchanged >= self.epochs

    def _now(self, strategy: "Strategy") -> float:
        return distance(self.start, strategy.architecture(), strategy.space)

    def state_dict(self) -> dict[str, Any]:
        return {"distance": self.distance, "unchanged": self.unchanged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.distance, self.unchanged = state["distance"], state["unchanged"]


def start_of(given: str | None, space: Space) -> Architecture:
    """The architecture that a search starts from, on the layers of `space`."""
    if given is None:
        return Architecture.of(space, {n: residual(c) for n, c in space.choices.items()})
    path = Path(given)
    if path.is_dir():
        path = path / "architecture.json"
    try:
        found = laid_out(Architecture.load(path if path.exists() else published(given)), space)
        found.check(space)
    except ValueError as error:
        raise ValueError(f"start: {error}") from error
    return found


def residual(choice: Choice) -> dict[str, list[str]]:
    """Row -> options: a convolution in the last row into each target, and a skip connection in the
    first one, if that is another; the first option of a row that has none."""
    kept = {}
    for target in choice.targets:
        first, *_, last = [choice.into(target)[0], *choice.into(target)]
        for r, kind in {first: "identity", last: "conv"}.items():
            real = [option for option in choice.rows[r].options if option.kind != "zero"]
            of_kind = [option for option in real if option.kind == kind]
            kept[choice.rows[r].name] = [(of_kind or real)[0].name]
    return kept
