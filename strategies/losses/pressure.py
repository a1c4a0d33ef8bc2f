"""A factor that grows until pruning keeps pace. GOLD-NAS, Bi et al. 2020, arXiv:2007.03331."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch

from search_spaces.settings import Positive, Range, checked


class Pressure:
    """lambda, held in the 0-dim tensor `strength`, which is changed in place.

    After an epoch that cut enough candidates: delta <- lambda0, lambda <- lambda / c; after any
    other: delta <- delta * c, lambda <- lambda + delta. Initially lambda = 0 and delta = lambda0.
    For an epoch that is a share s of the search, c = factor ** (s / period).

    Args:
        start: lambda0.
        factor, period: delta grows by `factor` per share `period` of the search.
        pace: enough is this share of all candidates over a whole search; at least 1 per epoch.
        ceiling: upper bound of lambda; None for no bound. Not in the paper: without it lambda
            explodes in a search of few, long epochs.

    Raises:
        ValueError: a setting out of its range.
    """

    @checked
    def __init__(
        self,
        start: Positive,
        factor: Annotated[float, Range(gt=1)],
        period: Positive,
        pace: Positive,
        ceiling: Positive | None = None,
    ):
        self.start, self.factor, self.period, self.pace = start, factor, period, pace
        self.ceiling = ceiling
        self.setup(0, torch.device("cpu"))

    def setup(self, candidates: int, device: torch.device) -> None:
        """Resets for a search over this many candidates."""
        self.candidates = self.left = candidates
        self.strength = torch.zeros((), device=device)
        self.delta, self.progress = self.start, 0.0

    def epoch_end(self, left: int, progress: float, *, rises: bool = True) -> None:
        """Updates lambda, given the number of candidates left; unchanged without `rises`."""
        cut, epoch = self.left - left, progress - self.progress
        self.left, self.progress = left, progress
        if not rises:
            return
        c = self.factor ** (epoch / self.period)
        if cut >= max(1, round(self.pace * self.candidates * epoch)):
            self.delta = self.start
            self.strength /= c
        else:
            self.delta *= c
            self.strength += self.delta
        if self.ceiling is not None:
            self.strength.clamp_(max=self.ceiling)

    def state_dict(self) -> dict[str, Any]:
        return {
            "strength": float(self.strength),
            "delta": self.delta,
            "progress": self.progress,
            "left": self.left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.strength.fill_(state["strength"])
        self.delta, self.progress, self.left = state["delta"], state["progress"], state["left"]
