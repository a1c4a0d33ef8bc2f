"""First-order bilevel update in the order of TAS: weights, then alphas.

Source: public code of Dong & Yang 2019, arXiv:1905.09717.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from strategies.update.first_order import FirstOrder

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy


class WeightsFirst(FirstOrder):
    """A weight step on the training batch, then an alpha step with the new weights."""

    averages = True

    def step(
        self,
        strategy: "Strategy",
        net: nn.Module,
        train: "Batch",
        val: "Batch | None",
        *,
        move_alphas: bool,
    ) -> dict[str, Tensor]:
        metrics = self.weight_step(strategy, net, train)
        return metrics | self.alpha_step(strategy, net, train, val) if move_alphas else metrics

    def constants(self) -> Hashable:
        return ()
