"""A discrete cell read from gates: each node's strongest edges, each with its best candidate."""

from torch import Tensor

from search_spaces.space import Cell


def strongest(cell: Cell, gates: Tensor, alive: Tensor) -> dict[str, tuple[str, ...]]:
    """The rule of the space: `top_edges` if the cell has a `keep`, else `best_candidates`."""
    if cell.keep is None:
        return best_candidates(cell, gates, alive)
    return top_edges(cell, gates, alive)


def top_edges(cell: Cell, gates: Tensor, alive: Tensor) -> dict[str, tuple[str, ...]]:
    """Per node the `cell.keep` strongest edges; the strength of an edge is its largest gate except
    `none`.

    gates (E, O), not renormalised without `none`, times the edge factors if there are any; alive
    (E, O). Ties go to the lower source, then the lower candidate. Edges are returned node by node,
    strongest first.
    Source: Liu et al. 2019, arXiv:1806.09055, section 2.4; with factors Xu et al. 2020,
        arXiv:1907.05737.

    Raises:
        ValueError: no alive candidate leads into a node.
    """
    assert cell.keep is not None
    kept: dict[str, tuple[str, ...]] = {}
    for node in cell.targets:
        best = []
        for e in cell.incoming(node):
            names = cell.edges[e].candidates
            real = [o for o, name in enumerate(names) if name != "none" and alive[e, o]]
            if real:
                o = max(real, key=lambda o, e=e: (float(gates[e, o]), -o))  # type: ignore[misc]
                best.append((float(gates[e, o]), e, names[o]))
        if not best:
            raise ValueError(
                f"no candidate into node {node} is left; prune less, or give the space more "
                "candidates"
            )
        best.sort(key=lambda item: -item[0])  # stable: ties keep the order of sources
        kept |= {cell.edges[e].name: (name,) for _, e, name in best[: cell.keep]}
    return kept


def best_candidates(cell: Cell, gates: Tensor, alive: Tensor) -> dict[str, tuple[str, ...]]:
    """The candidate with the largest gate on every edge; if that is `none`, the edge is dropped.

    Source: Dong & Yang 2020, arXiv:2001.00326, public code.
    """
    kept: dict[str, tuple[str, ...]] = {}
    for e, edge in enumerate(cell.edges):
        living = [o for o in range(len(edge.candidates)) if alive[e, o]]
        if living:
            best = edge.candidates[max(living, key=lambda o, e=e: (float(gates[e, o]), -o))]  # type: ignore[misc]
            if best != "none":
                kept[edge.name] = (best,)
    return kept
