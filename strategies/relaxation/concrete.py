"""The concrete relaxation: a softmax over noisy logits, annealed towards a discrete sample. SNAS.

Source: Xie et al. 2019, arXiv:1812.09926, section 2.3 and its public code; Maddison et al. 2017,
arXiv:1611.00712.
"""

from collections.abc import Hashable

import torch
from torch import Tensor

from strategies.relaxation.masked import masked_softmax
from strategies.relaxation.softmax import Softmax

SMALLEST = torch.finfo(torch.float32).tiny


def gumbel_like(logits: Tensor) -> Tensor:
    """Independent Gumbel(0, 1) noise of this shape: minus the logarithm of an exponential draw.

    From the device's global generator; at most 87.3, so it is always finite.
    """
    return -torch.empty_like(logits).exponential_().clamp_min(SMALLEST).log()


class Concrete(Softmax):
    """Z = softmax((log a + G) / temperature) per edge, G Gumbel noise, one draw per group and pass.

    (R, O) -> (R, O), soft: every alive candidate runs. alphas are log a, up to a constant that
    cancels. At any temperature, P(argmax Z = o) is softmax(alphas)_o. Like dropout, the noise is
    off in `eval` mode.

    Args:
        start, end: temperature at progress 0 and 1, linear between them (public code).

    Raises:
        ValueError: a temperature that is not positive.
    """

    samples = True  # two passes have different gates: see SecondOrder

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        if not self.training:
            return self.expected(alphas, alive)
        return masked_softmax((alphas + gumbel_like(alphas)) / self.temperature, alive), None

    def expected(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        """softmax(alphas): the probability that a candidate wins, and the mean of a one-hot Z."""
        return masked_softmax(alphas, alive), None

    def before_step(self, progress: float) -> None:
        self.temperature.fill_(self.start + (self.end - self.start) * progress)

    def constants(self) -> Hashable:
        return ()
