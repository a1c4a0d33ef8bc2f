"""Detects a search whose gates have hardly moved, so that its architecture is almost random."""

from collections.abc import Mapping

from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.shares import real_options

DECIDED = 0.98  # share of the largest entropy: gates then deviate by about a third


def undecided(
    space: Space, alive: Mapping[str, Tensor], found: Architecture, entropy: float
) -> str | None:
    """A warning if the gates exceed that share of the largest entropy, else None.

    alive (R, O) per choice. If everything alive is kept, pruning has decided and not the gates.
    """
    kept = sum(len(names) for edges in found.choices.values() for names in edges.values())
    left = sum(
        int((alive[name].cpu() & real_options(choice)).sum())
        for name, choice in space.choices.items()
    )
    if entropy <= DECIDED or kept == left:
        return None
    return (
        f"the gates are undecided ({entropy:.3f} of the largest entropy), so the cells are close "
        "to a draw; search longer (search.epochs), or with larger steps of the alphas "
        "(strategy.alpha_lr_scale), and compare with strategy=random"
    )
