"""First-order bilevel update. Liu et al. 2019, arXiv:1806.09055, section 2.3 with xi = 0.

Order: first the alphas descend on a validation batch, then the weights on a training batch.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from strategies.contracts import Update
from supernets.frozen import frozen_statistics, unread_statistics, without_gradients

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy


def loss_gradients(
    strategy: "Strategy",
    net: nn.Module,
    wanted: Sequence[Tensor],
    batch: "Batch",
    offsets: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Fills `.grad` of `wanted` from the training loss, with offsets of the gates if given; returns
    0-dim loss and accuracy."""
    with unread_statistics(net):
        loss, logits = strategy.loss(net, batch, offsets=offsets)
        loss.backward(inputs=list(wanted))
    with torch.no_grad():
        accuracy = (logits.argmax(1) == batch[1]).float().mean()
    return {"train_loss": loss.detach(), "train_accuracy": accuracy}


class FirstOrder(Update):
    """An alpha step that does not change weights or batch-norm statistics, then a weight step."""

    two_level = True
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
        """Returns 0-dim `train_loss`, `train_accuracy` and, if alphas moved, `val_loss`."""
        metrics = self.alpha_step(strategy, net, train, val) if move_alphas else {}
        return metrics | self.weight_step(strategy, net, train)

    def alpha_step(
        self, strategy: "Strategy", net: nn.Module, train: "Batch", val: "Batch | None"
    ) -> dict[str, Tensor]:
        """One alpha step on the validation loss."""
        assert val is not None
        strategy.alpha_optimizer.zero_grad()
        compute = partial(self._alpha_pass, strategy, net)
        metrics = strategy.gradients("alphas", compute, [train, val], strategy.arch_parameters())
        strategy.alpha_optimizer.step()
        return metrics

    def _alpha_pass(
        self, strategy: "Strategy", net: nn.Module, train: "Batch", val: "Batch"
    ) -> dict[str, Tensor]:
        with frozen_statistics(net):
            return {"val_loss": self.alpha_gradients(strategy, net, train, val).detach()}

    def alpha_gradients(
        self, strategy: "Strategy", net: nn.Module, train: "Batch", val: "Batch"
    ) -> Tensor:
        """Fills the gradients of the alphas; returns the validation loss."""
        with without_gradients(strategy.weights):
            loss, _ = strategy.loss(net, val, "val")
            loss.backward(inputs=strategy.arch_parameters())
        return loss

    def weight_step(
        self, strategy: "Strategy", net: nn.Module, train: "Batch"
    ) -> dict[str, Tensor]:
        """One weight step on the training loss, with gradient clipping."""
        strategy.weight_optimizer.zero_grad()
        compute = partial(self.weight_gradients, strategy, net)
        metrics = strategy.gradients("weights", compute, [train], strategy.weights)
        if strategy.clip is not None:
            nn.utils.clip_grad_norm_(strategy.weights, strategy.clip)
        strategy.weight_optimizer.step()
        return metrics

    def weight_gradients(
        self, strategy: "Strategy", net: nn.Module, train: "Batch"
    ) -> dict[str, Tensor]:
        """Fills the gradients of the weights; returns 0-dim loss and accuracy."""
        offsets = self.offsets(strategy, net, train)
        return loss_gradients(strategy, net, strategy.weights, train, offsets)

    def offsets(
        self, strategy: "Strategy", net: nn.Module, train: "Batch"
    ) -> Mapping[str, Tensor] | None:
        """What the weight step adds to the gates (R, O) of each choice; None: nothing."""
        return None

    def constants(self) -> Hashable:
        return ()
