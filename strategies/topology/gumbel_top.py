"""Gumbel-top-k: the edges into a node are drawn without replacement, and only they run. ROME, v2.

Source: Wang et al. 2023, arXiv:2011.11233, version 2, with two edges per node.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from search_spaces.choice import Choice
from search_spaces.settings import Positive
from strategies.contracts import Topology
from strategies.relaxation.concrete import gumbel_like
from strategies.relaxation.masked import masked_softmax
from strategies.shares import rows_into


class GumbelTop(Topology):
    """Of the rows into each target the `choice.keep` with the largest beta + G run, G Gumbel noise.

    Rows are thus drawn without replacement, in proportion to softmax(beta), at any temperature.
    Factors are 1 for rows that run, 0 for others; backward they are softmax((beta + G) /
    temperature) over the target's rows. The paper does not state its estimator; straight-through is
    our choice. Where all rows into a target run, their betas get no gradient. In `eval` mode there
    is no noise. If a choice keeps every row, all factors are 1 and its betas have no effect.

    Args:
        start, end: temperature at progress 0 and 1, linear between them (our choice: the paper only
            says that it decreases).

    Raises:
        ValueError: a temperature that is not positive.
    """

    samples = True

    def __init__(self, start: Positive, end: Positive):
        super().__init__()
        self.start, self.end = start, end
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor(float(start)))

    def forward(
        self, beta: Tensor, choice: Choice, alive: Tensor
    ) -> tuple[Tensor, Sequence[bool] | None]:
        """beta (R,), alive rows (R,) -> factors (R,), and which rows run, read on the host."""
        if choice.keep is None:
            return alive.to(beta.dtype), None
        into = rows_into(choice).to(beta.device) & alive  # (targets, R)
        noisy = self.noisy(beta).expand_as(into)
        order = noisy.masked_fill(~into, -torch.inf).argsort(dim=1, descending=True, stable=True)
        drawn = into & (order.argsort(1) < choice.keep)
        soft = masked_softmax(noisy / self.temperature, into)
        competing = into.sum(1, keepdim=True) > choice.keep
        slope = torch.where(competing, soft - soft.detach(), 0.0)
        return torch.where(drawn, 1.0 + slope, 0.0).sum(0), drawn.any(0).tolist()

    def noisy(self, beta: Tensor) -> Tensor:
        return beta + gumbel_like(beta) if self.training else beta

    def expected(self, beta: Tensor, choice: Choice, alive: Tensor) -> Tensor:
        """softmax(beta) over the rows into each target (R,): the chance to be drawn first."""
        if choice.keep is None:
            return alive.to(beta.dtype)
        into = rows_into(choice).to(beta.device) & alive
        return masked_softmax(beta.expand_as(into), into).sum(0)

    def before_step(self, progress: float) -> None:
        self.temperature.fill_(self.start + (self.end - self.start) * progress)
