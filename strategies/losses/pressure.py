"""A factor that grows until pruning keeps pace. GOLD-NAS, Bi et al. 2020, arXiv:2007.03331."""

from collections.abc import Mapping
from typing import Any

import torch


class Pressure:
    """lambda, as a 0-dim tensor `strength` that is filled in place.

    After an epoch that cut a fair number of candidates: delta <- lambda0, lambda <- lambda / c;
    after any other: delta <- delta * c, lambda <- lambda + delta. It starts at lambda = 0 and delta
    = lambda0. For an epoch that is a share s of the search, c = factor ** (s / period).

    Args:
        start: lambda0.
        factor, period: delta grows by `factor` in each such share of the search.
        pace: a fair number is this share of all candidates, in a whole search; at least 1 an epoch.
        ceiling: lambda is never above it; None: no such bound. Not in the paper: without it lambda
            grows past all measure in a search of few and therefore long epochs.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self, start: float, factor: float, period: float, pace: float, ceiling: float | None = None
    ):
        for name, value in (("start", start), ("period", period), ("pace", pace)):
            require(value > 0, name, "a positive number", value)
        require(ceiling is None or ceiling > 0, "ceiling", "a positive number or null", ceiling)
        require(factor > 1, "factor", "a number above 1", factor)
        self.start, self.factor, self.period, self.pace = start, factor, period, pace
        self.ceiling = ceiling
        self.setup(0, torch.device("cpu"))

    def setup(self, candidates: int, device: torch.device) -> None:
        """Starts a search over so many candidates."""
        self.candidates = self.left = candidates
        self.strength = torch.zeros((), device=device)
        self.delta, self.progress = self.start, 0.0

    def epoch_end(self, left: int, progress: float, *, rises: bool = True) -> None:
        """Sets the new lambda where so many candidates are left; it stays if it never `rises`."""
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


def require(holds: bool, name: str, expected: str, found: Any) -> None:
    """Raises ValueError for a setting that is not as expected."""
    if not holds:
        raise ValueError(f"{name}: expected {expected}, found {found!r}")
