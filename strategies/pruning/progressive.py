"""Keeps fewer and fewer candidates, in stages. P-DARTS and the progressive DrNAS.

Sources: Chen et al. 2019, arXiv:1904.12760; Chen et al. 2021, arXiv:2006.10355; their public code.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from strategies.contracts import Pruning, Stage
from strategies.pruning.release import release
from strategies.pruning.without_none import without_zeros
from strategies.shares import check_rows_are_free

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network


class Progressive(Pruning):
    """Divides the search into stages of equal length, and keeps a number of options after each.

    At the end of a stage each row keeps the options with the largest gates; in a tie the first
    ones. The last stage has no zeros where targets keep a fixed number of rows. Deviation: weights
    and alphas go on from stage to stage. The public code of P-DARTS starts each stage with a new,
    deeper supernet, that of the progressive DrNAS the second one with more channels.

    Args:
        keep: the options of a row in the second stage, the third, and so on.
        zeros: whether zeros take part in the earlier stages.

    Raises:
        ValueError: `keep` is empty, does not fall, or ends below 2.
    """

    def __init__(self, *, keep: Sequence[int], zeros: bool):
        if not keep or list(keep) != sorted(set(keep), reverse=True) or keep[-1] < 2:
            raise ValueError(f"keep: expected falling numbers of at least 2, found {list(keep)}")
        self.numbers, self.zeros = list(keep), zeros

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        check_rows_are_free(strategy, "prunes", "strategy/pruning=without_none")
        if not self.zeros:
            without_zeros(strategy)

    def ends(self, epochs: float) -> list[int]:
        """After how many epochs each stage but the last ends."""
        stages = len(self.numbers) + 1
        return [max(1, round(i * epochs / stages)) for i in range(1, stages)]

    def stage(self, epoch: int, epochs: float) -> Stage:
        ends = self.ends(epochs)
        start = max((end for end in ends if end <= epoch), default=0)
        return Stage(epoch - start, min((e for e in ends if e > epoch), default=epochs) - start)

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.over = sum(end <= epoch + 1 for end in self.ends(epochs))  # stages, after this epoch

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> None:
        if not self.over:
            return
        if self.over == len(self.numbers):
            without_zeros(strategy)
        left = {}
        for name, gates in strategy.gates().items():
            alive = strategy.alive[name]
            values = torch.where(alive, gates.to(alive.device), -1.0)
            ranked = values.sort(dim=1, descending=True, stable=True)
            most = self.numbers[self.over - 1]
            left[name] = torch.zeros_like(alive).scatter(1, ranked.indices[:, :most], True)
        strategy.prune(left)
        release(net, strategy)
