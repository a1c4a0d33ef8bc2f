"""Gumbel-max: one candidate per edge is drawn and runs, with the gradient of a softmax. GDAS.

Source: Dong & Yang 2019, arXiv:1910.04465, section 3.2, eq. 3 to 5, and its public code.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strategies.relaxation.concrete import Concrete
from strategies.shares import check_rows_are_free

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network


class Gumbel(Concrete):
    """h = one_hot(argmax_o Z_o) per edge, Z as in `Concrete`; backward as if the gates were Z.

    (R, O) -> gates (R, O) of exact zeros and ones, and index (R,), the candidates that run. All
    logits of an edge get a gradient, through the softmax. P(index = o) is softmax(alphas)_o at any
    temperature, which only scales the gradient. Without noise (`eval` mode) only the candidates
    with the largest alphas run, with the gradient of softmax(alphas).

    Args:
        start, end: temperature at progress 0 and 1, linear between them.

    Raises:
        ValueError: a temperature that is not positive; a space whose rows are linked, in which
            options that are drawn apart seldom fit each other.
    """

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        check_rows_are_free(
            strategy, "draws", "strategy/relaxation=softmax and strategy/mixed_op=full"
        )

    def forward(  # type: ignore[override]  # the others never have an index
        self, alphas: Tensor, alive: Tensor
    ) -> tuple[Tensor, Tensor]:
        soft, _ = super().forward(alphas, alive)
        index = soft.argmax(-1)  # the strategy reads it once per group: the only device sync
        hard = torch.zeros_like(soft).scatter(1, index[:, None], 1.0)
        return torch.where(alive, hard + (soft - soft.detach()), 0.0), index
