"""How far two architectures are apart. D-DARTS, Heuillet et al. 2021, arXiv:2108.09306.

The definition is that of the public code; the text of the paper could not be read. The code weighs
operations by a table of accuracies, of which we have two entries: all weights are 1 by default.
"""

from collections.abc import Collection, Mapping

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.space import Space

Edges = Collection[frozenset[str]]  # what each kept row keeps


def distance(
    a: Architecture, b: Architecture, space: Space, weights: Mapping[str, float] | None = None
) -> float:
    """The mean over the choices of `space` of the distance between two cells, in [0, 1].

    A cell is the set of its edges, and an edge the set of its operations: which states an edge
    connects does not count. Edges differ by the weights of the operations that only one of them
    has, as a share of all weights (Hamming); cells by the largest distance of an edge from the
    nearest one of the other cell, in either direction (Hausdorff).

    Args:
        a, b: architectures of this space; `search_spaces.layers.laid_out` fits one of other layers.
        weights: operation -> weight; the others weigh 1.
    """
    found = []
    for name, choice in space.choices.items():
        weigh = _weights(choice, weights or {})
        found.append(hausdorff(_edges(a, name), _edges(b, name), weigh))
    return sum(found) / len(found)


def hausdorff(a: Edges, b: Edges, weights: Mapping[str, float]) -> float:
    """The symmetric Hausdorff distance of two sets of edges. weights: of all operations."""

    def apart(e: frozenset[str], f: frozenset[str]) -> float:
        return sum(weights[name] for name in e ^ f) / sum(weights.values())

    def farthest(ours: Edges, theirs: Edges) -> float:
        return max(min(apart(e, f) for f in theirs) for e in ours)

    return max(farthest(a, b), farthest(b, a))


def _edges(architecture: Architecture, name: str) -> Edges:
    """The edges of a cell; one without operations if it keeps none."""
    return {frozenset(kept) for kept in architecture.choices[name].values()} or {frozenset()}


def _weights(choice: Choice, given: Mapping[str, float]) -> dict[str, float]:
    names = [o.name for row in choice.rows for o in row.options if o.kind != "zero"]
    return {name: given.get(name, 1.0) for name in names}
