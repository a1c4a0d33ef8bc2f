"""A discrete network read from what pruning has left. GOLD-NAS, arXiv:2007.03331."""

from torch import Tensor

from search_spaces.choice import Choice
from strategies.discretisation.strongest import NOTHING_LEFT, best_options


def survivors(
    choice: Choice, gates: Tensor, factors: Tensor | None, alive: Tensor
) -> dict[str, tuple[str, ...]]:
    """The alive options of each row except zeros, in the order of the space; gates are ignored.

    A target may have any number of rows, a row several options. In a space with one option in every
    row (`choice.keep` is None) the survivor with the largest gate is kept, and rows without a
    survivor are dropped.

    Raises:
        ValueError: no alive option leads into a target.
    """
    if choice.keep is None:
        return best_options(choice, gates, factors, alive)
    kept, entered = {}, set()
    for row, on in zip(choice.rows, alive.tolist(), strict=True):
        names = tuple(
            option.name for o, option in enumerate(row.options) if on[o] and option.kind != "zero"
        )
        if names:
            kept[row.name] = names
            entered.add(row.target)
    for target in choice.targets:
        if target not in entered:
            raise ValueError(NOTHING_LEFT.format(target))
    return kept
