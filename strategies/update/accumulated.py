"""Gradients accumulated over several draws of the architecture. ROME.

Source: Wang et al. 2023, arXiv:2011.11233, gradient accumulation.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from search_spaces.settings import Count
from strategies.update.first_order import FirstOrder

if TYPE_CHECKING:
    from strategies.gradients import Batch, Metrics
    from strategies.strategy import Strategy


class Accumulated(FirstOrder):
    """First order, each step over K passes on one batch, each with gates drawn anew.

    Gradients of alphas and betas are averaged over the K passes, those of weights are summed. The
    passes run one after the other, so memory is that of one; the time is K times as long. Without
    drawn gates the passes are alike, and the learning rate of the weights is in effect K times as
    large.

    Args:
        samples: K; 7 in the paper's search on CIFAR-10, 3 in that on ImageNet.
    """

    averages = True

    def __init__(self, samples: Count):
        self.samples = samples

    def alpha_gradients(
        self, strategy: "Strategy", net: nn.Module, train: "Batch", val: "Batch"
    ) -> Tensor:
        losses = []
        for _ in range(self.samples):
            losses.append(super().alpha_gradients(strategy, net, train, val).detach())
        for parameter in strategy.arch_parameters():
            if parameter.grad is not None:
                parameter.grad /= self.samples
        return torch.stack(losses).mean()

    def weight_gradients(self, strategy: "Strategy", net: nn.Module, train: "Batch") -> "Metrics":
        passes = []
        for _ in range(self.samples):
            passes.append(super().weight_gradients(strategy, net, train))
        return {name: torch.stack([one[name] for one in passes]).mean() for name in passes[0]}
