"""A discrete network of the options whose gates exceed a threshold. Fair DARTS.

Source: Chu et al. 2020, arXiv:1911.12126, section 4.1: a threshold of 0.85, at most two rows into
a target.
"""

import torch
from torch import Tensor

from search_spaces.choice import Choice
from search_spaces.settings import Share, checked
from strategies.discretisation.strongest import strongest
from strategies.shares import real_options, weighed


@checked
def above_threshold(
    choice: Choice,
    gates: Tensor,
    factors: Tensor | None,
    alive: Tensor,
    *,
    threshold: Share,
) -> dict[str, tuple[str, ...]]:
    """The rule of the space (`strongest`), among the options whose gate, times the row's factor, is
    above the threshold; a target may keep fewer rows than the space's number.

    One option a row, its largest: which option of a row counts is not said in the paper, and ours.
    Where rows are linked the threshold could leave no path, and is not applied (ours).
    A target that no option leads into above the threshold keeps its best row instead: a cell with a
    node without an input is no cell, which the paper does not treat.

    Raises:
        ValueError: no option that is alive leads into a target.
    """
    if choice.linked:
        return strongest(choice, gates, factors, alive)
    real, values = alive & real_options(choice), weighed(gates, factors)
    passed = alive & (values > threshold)
    strengths = torch.where(real, values, -torch.inf).max(1).values  # (R,)
    for target in choice.targets:
        into = choice.into(target)
        if -torch.inf < float(strengths[into].max()) <= threshold:
            row = into[int(strengths[into].argmax())]
            passed[row] = real[row]
    return strongest(choice, gates, factors, passed)
