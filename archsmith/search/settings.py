"""The settings of the search loop: its length, batches and precision."""

from dataclasses import dataclass

from archsmith.numbers import is_number
from archsmith.train.runtime import PRECISIONS
from strategies.settings import require


@dataclass(frozen=True)
class SearchSettings:
    """Length, batches and precision of a search.

    Args:
        micro_batches: number of parts in which a batch is computed, to save memory.
        seconds: time budget of the search; if set, `epochs` is estimated from it, again after each
            epoch (`archsmith.search.time_budget`).
        curvature: each epoch also measures the largest eigenvalue in alpha and the sharpness in
            the weights, on one stratified batch of `select` that is the same in every epoch; takes
            as long as about 25 steps.
        precision: `float32`, or `bfloat16` autocast of the supernet; alphas, gates, weights and
            statistics stay float32.

    Raises:
        ValueError: a number is not positive, or not whole although it must be, or the precision is
            unknown.
    """

    epochs: int
    batch_size: int
    seconds: float | None = None
    curvature: bool = False
    micro_batches: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batches"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(whole, f"search.{name}", "a whole number of at least 1", value)
        known = f"one of {', '.join(PRECISIONS)}"
        require(self.precision in PRECISIONS, "search.precision", known, self.precision)
        valid = self.seconds is None or (is_number(self.seconds) and self.seconds > 0)
        require(valid, "search.seconds", "a positive number or null", self.seconds)
