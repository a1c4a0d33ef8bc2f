"""SmoothDARTS: weights are trained for gates near the present ones, so that the loss is smooth.

Source: Chen & Hsieh 2020, arXiv:2002.05283, section 4, and the public code.
"""

from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.settings import NotNegative, Range
from strategies.micro_batches import in_parts
from strategies.update.first_order import FirstOrder
from supernets.frozen import frozen_statistics, without_gradients

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy


class Smooth(FirstOrder):
    """First order, but the weight step adds an offset of at most epsilon to each gate.

    Offsets are uniform in [-epsilon, epsilon] (SDARTS-RS). With `attack_steps` above 0 they are
    moved from there to raise the training loss (SDARTS-ADV): projected gradient ascent by the sign
    of the gradient, with steps of 2 epsilon / `attack_steps`. Gates stay in [0, 1]; the alpha step
    has no offsets. The attack uses the batch's statistics, which it does not move; the public code
    uses running statistics.

    Args:
        start, end: epsilon in the first epoch, and after the last; it is linear between them.
        attack_steps: number of steps of the attack; each costs a pass and its gradient.
    """

    averages = True

    def __init__(
        self, start: NotNegative, end: NotNegative, attack_steps: Annotated[int, Range(ge=0)]
    ):
        self.start, self.end, self.attack_steps = start, end, attack_steps
        if attack_steps:
            self.averages = False  # the attack follows the gradient of the whole batch
        self.epsilon = start

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.epsilon = self.start + (self.end - self.start) * epoch / epochs

    def offsets(self, strategy: "Strategy", net: nn.Module, train: "Batch") -> dict[str, Tensor]:
        """Choice -> offsets (R, O), drawn with torch's generator."""
        epsilon = self.epsilon
        drawn = {
            name: torch.empty_like(alphas).uniform_(-epsilon, epsilon)
            for name, alphas in strategy.alphas.items()
        }
        for _ in range(self.attack_steps):
            with frozen_statistics(net), without_gradients(strategy.weights):
                moved = {name: delta.requires_grad_() for name, delta in drawn.items()}
                mixture = strategy.mixture(offsets=moved)
                parts = strategy.micro_batches
                logits = in_parts(partial(net, mixture=mixture), train[0], parts, strategy.net)
                rising = torch.autograd.grad(F.cross_entropy(logits, train[1]), [*moved.values()])
            step = 2 * epsilon / self.attack_steps
            drawn = {
                name: (delta.detach() + step * slope.sign()).clamp(-epsilon, epsilon)
                for (name, delta), slope in zip(moved.items(), rising, strict=True)
            }
        return drawn

    def constants(self) -> Hashable:
        """Changes with every epoch."""
        return self.epsilon
