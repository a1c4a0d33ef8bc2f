"""The settings of the search loop: its length, batches and precision."""

from dataclasses import dataclass
from typing import Literal

from archsmith.train.runtime import Precision
from search_spaces.settings import Count, Positive, checked

ScoreKind = Literal["table", "inherited", "training"]


@checked
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
        signal: each epoch also measures the ratio of signal to noise in the gradient of the alphas
            (`archsmith.search.signal`).
        precision: `float32`, or `bfloat16` autocast of the supernet; alphas, gates, weights and
            statistics stay float32.
        score: how a searcher's architectures are scored (`archsmith.phases.scores`).

    Raises:
        ValueError: a setting out of its range.
    """

    epochs: Count
    batch_size: Count
    seconds: Positive | None = None
    curvature: bool = False
    signal: bool = False
    micro_batches: Count = 1
    precision: Precision = "float32"
    score: ScoreKind = "training"
