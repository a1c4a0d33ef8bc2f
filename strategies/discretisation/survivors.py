"""Reading a discrete cell: every candidate that pruning has left. GOLD-NAS, arXiv:2007.03331."""

from torch import Tensor

from search_spaces.space import Cell
from strategies.discretisation.strongest import best_candidates


def survivors(cell: Cell, gates: Tensor, alive: Tensor) -> dict[str, tuple[str, ...]]:
    """Per edge the alive candidates but `none`, in the order of the space; gates do not matter.

    gates (E, O), alive (E, O). A node may have any number of inputs, an edge several candidates.
    A space with one candidate on every edge (`cell.keep` is None) gets the survivor of the largest
    gate; there an edge, or a node, on which nothing survives is dropped.

    Raises:
        ValueError: nothing alive leads into a node.
    """
    if cell.keep is None:
        return best_candidates(cell, gates, alive)
    kept = {}
    for edge, on in zip(cell.edges, alive.tolist(), strict=True):
        names = tuple(name for o, name in enumerate(edge.candidates) if on[o] and name != "none")
        if names:
            kept[edge.name] = names
    entered = {edge.target for edge in cell.edges if edge.name in kept}
    for node in cell.targets:
        if node not in entered:
            raise ValueError(
                f"no candidate into node {node} is left; prune less, or widen space.candidates"
            )
    return kept
