"""Sparse-noisy softmax: a cold softmax whose noise keeps gradients alive, with adaptive cooling.

Source: Zhang & Ding 2023, arXiv:2306.06855, abstract: train the supernet at a small temperature;
avoid the saturated gradient by a "sparse-noisy softmax"; an exponential schedule; an adaptive
scheme based on entropy. No formula, number or code is public, so all details are our own choice and
not a replication.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from search_spaces.settings import OpenShare, Positive, Range
from strategies.relaxation.concrete import gumbel_like
from strategies.relaxation.entropy import COLDEST, HOTTEST, temperature_at
from strategies.relaxation.masked import masked_softmax
from strategies.relaxation.softmax import Softmax

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network

FASTEST = 2.0  # largest factor of change per epoch of the adaptive temperature


Temperature = Annotated[float, Range(ge=COLDEST, le=HOTTEST)]


class SparseNoisy(Softmax):
    """p = softmax((a + m s g) / T) per edge: g Gumbel noise, s its scale, m in {0, 1} its mask.

    (R, O) -> (R, O), one draw per group and pass. T = start (end / start)^t is set before every
    step, t from 0 at the end of the warm-up to 1; s = max(T, least_noise). As T falls, p tends to
    one-hot and the mean gradient to that of softmax(a / s), which does not saturate. No noise in
    `eval` mode. With `noisy_edges=0` and `start=end=1` it is plain DARTS, bit for bit.

    Adaptive: after each epoch T is also bounded by the T at which the mean entropy of
    softmax(a / T), over ln n, is final_entropy^t; the bound is within a factor 2 of the T in use.
    All groups share one T, so edges stay comparable.

    Args:
        start, end: T at t = 0 and 1.
        noisy_edges: P(m = 1), drawn per edge. Below 1 noise is sparse: most edges are sharp, a few
            explore. At 1 every edge is noisy, and only p is sparse.
        least_noise: lower bound of s; 1 (with start <= 1) is Gumbel-softmax.
        final_entropy: h at t = 1, relative to a uniform one; None for the schedule alone.
        read_at: temperature at which the architecture is read. At `end`, all decided edges would
            have a gate of exactly 1 and be chosen by their order.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        start: Temperature,
        end: Temperature,
        *,
        noisy_edges: Annotated[float, Range(ge=0, le=1)],
        least_noise: Positive,
        final_entropy: OpenShare | None,
        read_at: Temperature,
    ):
        super().__init__(start, end)
        self.noisy_edges, self.least_noise = noisy_edges, least_noise
        self.samples = noisy_edges > 0  # see SecondOrder
        self.final_entropy, self.read_at = final_entropy, read_at
        self.warmup = 0.0
        self.bound: Tensor
        self.register_buffer("bound", torch.tensor(torch.inf))

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.warmup = strategy.warmup

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        if self.training and self.samples:
            noisy = torch.rand_like(alphas[:, :1]) < self.noisy_edges  # (E, 1)
            scale = self.temperature.clamp_min(self.least_noise)
            alphas = alphas + noisy * scale * gumbel_like(alphas)
        return masked_softmax(alphas / self.temperature, alive), None

    def expected(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        """Noise-free gates at the temperature `read_at`, whatever the current one."""
        return masked_softmax(alphas / self.read_at, alive), None

    def before_step(self, progress: float) -> None:
        super().before_step(self._since_warmup(progress))
        self.temperature.clamp_(max=self.bound)

    def constants(self) -> Hashable:
        return ()

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> None:
        if self.final_entropy is not None:
            tables = [(strategy.shifted(name), alive) for name, alive in strategy.alive.items()]
            wanted = temperature_at(tables, self.final_entropy ** self._since_warmup(progress))
            used = self.temperature
            self.bound.copy_(wanted.clamp(used / FASTEST, used * FASTEST).clamp_min(COLDEST))

    def _since_warmup(self, progress: float) -> float:
        """t: progress counted from the end of the warm-up, 0 before it."""
        return max(0.0, progress - self.warmup) / (1 - self.warmup)
