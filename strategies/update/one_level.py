"""One-level update: weights and alphas descend together, on the same training batch.

Source: Xie et al. 2019, arXiv:1812.09926, section 2.1; Bi et al. 2020, arXiv:2007.03331.
"""

from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from strategies.contracts import Update
from strategies.update.first_order import loss_gradients

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy


class OneLevel(Update):
    """One backward pass for both, then a step of each optimiser. There are no val images."""

    two_level = False
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
        """Returns 0-dim `train_loss` and `train_accuracy`, both before the step."""
        optimizers = strategy.weight_optimizer, strategy.alpha_optimizer
        for optimizer in optimizers:
            optimizer.zero_grad()
        arch = strategy.arch_parameters() if move_alphas else []  # no gradient, no step
        wanted = [*strategy.weights, *arch]
        name = "weights and alphas" if arch else "weights"
        compute = partial(loss_gradients, strategy, net, wanted)
        metrics = strategy.gradients(name, compute, [train], wanted)
        if strategy.clip is not None:
            nn.utils.clip_grad_norm_(strategy.weights, strategy.clip)
        for optimizer in optimizers:
            optimizer.step()
        return metrics

    def constants(self) -> Hashable:
        return ()
