"""Reading a discrete cell: every candidate that pruning has left. GOLD-NAS, arXiv:2007.03331."""

from torch import Tensor

from search_spaces.space import Cell
from strategies.discretisation.strongest import best_candidates


def survivors(cell: Cell, gates: Tensor, alive: Tensor) -> dict[str, tuple[str, ...]]:
    """The alive candidates of each edge except `none`, in the order of the space; gates are
    ignored.

    gates (E, O), alive (E, O). A node may have any number of inputs, an edge several candidates. In
    a space with one candidate on every edge (`cell.keep` is None) the survivor with the largest
    gate is kept, and edges or nodes without a survivor are dropped.

    Raises:
        ValueError: no alive candidate leads into a node.
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
                f"no candidate into node {node} is left; prune less, or widen the candidates"
            )
    return kept
