"""The contract of a black-box search: architectures are asked for, and their scores told."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.settings import Count, checked
from search_spaces.space import Space
from strategies.discretisation.decisions import Structure
from supernets.final_costs import total


class Searcher(ABC):
    """A black-box search: asks for architectures and is told their scores.

    Args:
        asks: how many architectures are scored; the best one is the result. None takes the first
            one without a score.

    Raises:
        ValueError: `asks` is not a positive whole number.
    """

    ATTEMPTS = 5000  # architectures that are asked for to find one within limits

    @checked
    def __init__(self, space: Space, asks: Count | None = None):
        self.space, self.asks = space, asks

    @abstractmethod
    def ask(self) -> Architecture:
        """The next architecture. It is asked again, without a `tell`, if the answer exceeds a
        budget."""

    def tell(self, architecture: Architecture, score: float) -> None:
        """Called with the score of the last answer, its accuracy as a fraction, before the next
        `ask`."""
        return

    def refuse(self, architecture: Architecture) -> None:
        """Called instead of `tell` with an answer that exceeds a budget."""
        return

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search needs, as tensors and plain values. Global random generators are
        saved by the search."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        return

    def structures(self) -> dict[str, Structure]:
        """The structure of each choice: what the space allows."""
        return {name: Structure.of_space(choice) for name, choice in self.space.choices.items()}

    def within(
        self, costs: Sequence[Mapping[str, Tensor]], limits: Sequence[float], **meta: Any
    ) -> Architecture | None:
        """The first of at most `ATTEMPTS` answers within the limits, or None.

        costs: choice -> (R, O) each.
        """
        for _ in range(self.ATTEMPTS):
            asked = self.ask()
            spent = (total(asked, self.space, tables) for tables in costs)
            if all(cost <= limit for cost, limit in zip(spent, limits, strict=True)):
                return replace(asked, meta=meta)
            self.refuse(asked)
        return None
