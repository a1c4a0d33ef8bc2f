"""Distillation from a moving average of the supernet's weights."""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from search_spaces.settings import NotNegative, Positive, Share
from strategies.contracts import LossTerm
from strategies.losses.distillation import distillation, softened
from strategies.losses.snapshot import Snapshot, Weights, copy_mixture, copy_weights, lent

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture


class EMATeacher(LossTerm):
    """weight * T^2 KL(q || softmax(z / T)) on training images, where q is the prediction of the
    averaged supernet.

    The average w' <- decay w' + (1 - decay) w is updated after every step; it uses the student's
    gates. Source: Tarvainen & Valpola 2017, arXiv:1703.01780; as a term added to the cross-entropy
    (MESA): Du et al. 2022, arXiv:2205.14083.

    Raises:
        ValueError: a setting out of its range.
    """

    roles = ("train",)
    averages = True

    def __init__(self, *, weight: NotNegative, temperature: Positive, decay: Share, start: Share):
        self.weight, self.temperature = weight, temperature
        self.decay, self.start = decay, start
        self.teaching = False

    def setup(self, net: nn.Module, strategy: "Strategy") -> None:
        self.net = net
        self.average: Weights = copy_weights(net)

    def before_step(self, progress: float) -> None:
        self.teaching = self.weight > 0 and progress >= self.start

    def constants(self) -> Hashable:
        return self.teaching

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim, for the student's logits (B, classes)."""
        if not self.teaching:
            return logits.new_zeros(())
        with lent(self.net):
            taught = Snapshot(self.average, copy_mixture(mixture)).logits(self.net, batch[0])
        return self.weight * distillation(
            logits, softened(taught, self.temperature), self.temperature
        )

    @torch.no_grad()
    def after_step(self, net: nn.Module, strategy: "Strategy") -> None:
        weights = dict(net.named_parameters())
        averages = [self.average[name] for name in weights]
        torch._foreach_lerp_(averages, list(weights.values()), 1 - self.decay)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, value in state["average"].items():
                self.average[name].copy_(value)
