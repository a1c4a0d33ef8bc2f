"""A discrete network read from gates: the strongest rows of each target, each with its best option.

All rules take a choice, gates (R, O), the rows' factors (R,) or None, and which options are alive,
(R, O) bool. They return the options kept of each row, by name; other rows are dropped.
"""

import torch
from torch import Tensor

from search_spaces.choice import Choice
from strategies.discretisation.longest_path import longest_path
from strategies.shares import real_options, weighed


def strongest(
    choice: Choice, gates: Tensor, factors: Tensor | None, alive: Tensor
) -> dict[str, tuple[str, ...]]:
    """The rule of the space: `longest_path` if the rows of the choice are linked, `top_rows` if it
    has a `keep`, else `best_options`."""
    if choice.linked:
        return longest_path(choice, gates, factors, alive)
    if choice.keep is None:
        return best_options(choice, gates, factors, alive)
    return top_rows(choice, gates, factors, alive)


def top_rows(
    choice: Choice, gates: Tensor, factors: Tensor | None, alive: Tensor
) -> dict[str, tuple[str, ...]]:
    """Per target the `choice.keep` strongest rows; the strength of a row is its largest gate that
    is not of a zero, times the row's factor.

    Gates are not renormalised without the zero. Ties go to the first row, then the first option.
    Rows are returned target by target, strongest first.
    Source: Liu et al. 2019, arXiv:1806.09055, section 2.4; with factors Xu et al. 2020,
        arXiv:1907.05737.

    Raises:
        ValueError: no alive option leads into a target.
    """
    assert choice.keep is not None
    strength = weighed(gates, factors).tolist()
    real, on = choice.offers(zero=False), alive.tolist()
    kept: dict[str, tuple[str, ...]] = {}
    for target in choice.targets:
        best = []
        for r in choice.into(target):
            left = [o for o, there in enumerate(real[r]) if there and on[r][o]]
            if left:
                o = max(left, key=strength[r].__getitem__)  # the first of equals
                best.append((strength[r][o], r, choice.rows[r].names[o]))
        if not best:
            raise ValueError(NOTHING_LEFT.format(target))
        best.sort(key=lambda item: -item[0])  # stable: ties keep the order of rows
        kept |= {choice.rows[r].name: (name,) for _, r, name in best[: choice.keep]}
    return kept


def best_options(
    choice: Choice, gates: Tensor, factors: Tensor | None, alive: Tensor
) -> dict[str, tuple[str, ...]]:
    """The option with the largest gate in every row; a row whose best is a zero is dropped.

    Factors of rows make no difference. Source: Dong & Yang 2020, arXiv:2001.00326, public code.
    """
    kept: dict[str, tuple[str, ...]] = {}
    for row, values, on in zip(choice.rows, gates.tolist(), alive.tolist(), strict=True):
        left = [o for o in range(len(row.options)) if on[o]]
        if left:
            best = row.options[max(left, key=values.__getitem__)]
            if best.kind != "zero":
                kept[row.name] = (best.name,)
    return kept


def rows_first(
    choice: Choice, gates: Tensor, factors: Tensor | None, alive: Tensor
) -> dict[str, tuple[str, ...]]:
    """Per target the `choice.keep` rows with the largest factors, however large their gates are;
    of each row the option with the largest gate that is not of a zero.

    Without factors, or if every row is kept, it is `strongest`. Raises ValueError like `top_rows`.
    Source: Wang et al. 2023, arXiv:2011.11233: edges are chosen by beta alone, operations by alpha.
    """
    if factors is None or choice.keep is None:
        return strongest(choice, gates, factors, alive)
    real = alive & real_options(choice)
    best = torch.where(real, gates, 0.0).amax(1, keepdim=True)
    return top_rows(choice, gates / best.clamp_min(SMALLEST), factors, alive)


NOTHING_LEFT = "no candidate into node {} is left; prune less, or give the space more candidates"
SMALLEST = torch.finfo(torch.float32).tiny
