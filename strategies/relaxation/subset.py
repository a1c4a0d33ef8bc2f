"""A few options of each row are sampled and mixed. TAS.

Source: Dong & Yang 2019, arXiv:1905.09717, section 3.1, eq. 3 to 5, and its public code.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from search_spaces.choice import Choice
from search_spaces.settings import Count, Positive
from strategies.relaxation.concrete import Concrete, gumbel_like
from strategies.shares import check_rows_are_free

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network


class Subset(Concrete):
    """w_j = Z_j / sum_{k in I} Z_k for j in I, else 0; Z as in `Concrete`, I a sample of options.

    I is drawn without replacement from the multinomial distribution Z, so gates are random twice:
    by the noise in Z, and by the draw. The gates of a row depend on the logits of I alone, since
    the denominator of Z cancels. Options of a joint choice (`Choice.joint`) all run, with gates Z.
    Without noise (`eval` mode) all options run, with gates softmax(alphas): our choice.

    Args:
        start, end: temperature at progress 0 and 1, linear between them.
        size: the number of options in I; 2 in the paper.

    Raises:
        ValueError: a temperature that is not positive, a size below 1, or a space whose rows are
            linked.
    """

    def __init__(self, start: Positive, end: Positive, size: Count):
        super().__init__(start, end)
        self.size = size

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        check_rows_are_free(
            strategy, "draws", "strategy/relaxation=softmax and strategy/mixed_op=full"
        )

    def of_choice(
        self, alphas: Tensor, alive: Tensor, choice: Choice
    ) -> tuple[Tensor, Tensor | None]:
        return super().forward(alphas, alive) if choice.joint else self(alphas, alive)

    def forward(  # type: ignore[override]
        self, alphas: Tensor, alive: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Gates (R, O) and the options I that run (R, size)."""
        soft, _ = super().forward(alphas, alive)
        if not self.training:
            return soft, None
        index = drawn(soft.detach(), alive, self.size)
        chosen = torch.zeros_like(alive).scatter(1, index, True) & alive
        total = torch.where(chosen, soft, 0.0).sum(1, keepdim=True)
        return torch.where(chosen, soft / torch.where(total > 0, total, 1.0), 0.0), index


def drawn(probabilities: Tensor, alive: Tensor, size: int) -> Tensor:
    """The positions (R, size) of options drawn without replacement by probabilities (R, O), which
    are at least 1e-7 for an alive one; positions of others follow where too few are alive.

    The largest keys log p + Gumbel noise are such a sample (Vieira 2014; Kool et al. 2019,
    arXiv:1903.06059).
    """
    keys = probabilities.clamp_min(1e-7).log() + gumbel_like(probabilities)
    keys = keys.masked_fill(~alive, -torch.inf)
    return keys.topk(min(size, keys.size(1))).indices
