"""A search whose gates have hardly moved: what is read from them is then close to a draw."""

from collections.abc import Mapping

from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.space import Space

DECIDED = 0.98  # of the largest entropy: shares that differ by a standard deviation of a third


def undecided(
    space: Space, alive: Mapping[str, Tensor], found: Architecture, entropy: float
) -> str | None:
    """What is said of gates at that share of the largest entropy, or None where they decide.

    alive (E, O) per group. Where all that is alive is kept, pruning has decided and not the gates.
    """
    kept = sum(len(names) for edges in found.choices.values() for names in edges.values())
    left = sum(
        int(on[o])
        for group, cell in space.groups.items()
        for on, edge in zip(alive[group].cpu(), cell.edges, strict=True)
        for o, name in enumerate(edge.candidates)
        if name != "none"
    )
    if entropy <= DECIDED or kept == left:
        return None
    return (
        f"the gates are undecided ({entropy:.3f} of the largest entropy), so the cells are close "
        "to a draw; search longer (search.epochs), or with larger steps of the alphas "
        "(strategy.alpha_lr_scale), and compare with strategy=random"
    )
