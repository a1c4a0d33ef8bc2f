"""Masks over the options of a choice, weighed gates, and an option's share of its target's gates.

Shares: GOLD-NAS, Bi et al. 2020, arXiv:2007.03331.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from search_spaces.choice import Choice

if TYPE_CHECKING:
    from strategies.strategy import Strategy


def every_option(choice: Choice) -> Tensor:
    """(R, O) bool: whether there is an option; padding is not one."""
    return torch.tensor(choice.offers(zero=True))


def real_options(choice: Choice) -> Tensor:
    """(R, O) bool: whether there is an option other than a zero."""
    return torch.tensor(choice.offers(zero=False))


def rows_into(choice: Choice) -> Tensor:
    """(targets, R) bool: which rows lead into which target."""
    return torch.tensor([[row.target == i for row in choice.rows] for i in choice.targets])


def same_target(choice: Choice) -> Tensor:
    """(R, R): 1 if two rows lead into the same state, else 0."""
    targets = torch.tensor([row.target for row in choice.rows])
    return (targets[:, None] == targets).float()


def weighed(gates: Tensor, factors: Tensor | None) -> Tensor:
    """Gates (R, O) times the factors of their rows (R,), if there are any."""
    return gates if factors is None else factors[:, None] * gates


def node_sums(values: Tensor, same: Tensor) -> Tensor:
    """(R, 1): for each row the sum of `values` (R, O) over all rows into its target."""
    return (same.to(values.dtype) @ values.sum(1))[:, None]


def shares(gates: Tensor, same: Tensor) -> Tensor:
    """w_o / S (R, O) for gates (R, O), with S their sum over the target; 0 if S is 0."""
    return gates / node_sums(gates, same).clamp_min(torch.finfo(gates.dtype).tiny)


def check_rows_are_free(strategy: "Strategy", does: str, remedy: str) -> None:
    """Raises ValueError for a space whose rows are linked (`Choice.linked`): options that are taken
    apart would leave no path."""
    if any(choice.linked for choice in strategy.space.choices.values()):
        raise ValueError(
            f"{does} the options of each row apart, and those of linked rows would seldom fit; "
            f"set {remedy}"
        )
