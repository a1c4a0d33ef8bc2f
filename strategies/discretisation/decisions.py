"""What a discretisation rule decides, and what each way to decide scores and costs.

A rule is asked, not known: it says by its answers whether it keeps so many edges into a node, or
one candidate on every edge.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from search_spaces.architecture import reachable
from search_spaces.space import Cell
from strategies.contracts import DiscretisationRule
from strategies.shares import real_candidates


@dataclass(frozen=True)
class Option:
    """One way to decide: what is kept, the sum of its log gates, and its costs, one a kind.

    A `none` that was chosen counts in the score, and is not kept.
    """

    kept: tuple[tuple[str, str], ...] = ()  # edge, candidate
    score: float = 0.0
    costs: tuple[float, ...] = ()

    def __add__(self, other: "Option") -> "Option":
        costs = tuple(a + b for a, b in zip(self.costs, other.costs, strict=True))
        return Option(self.kept + other.kept, self.score + other.score, costs)


@dataclass(frozen=True)
class Structure:
    """How many edges each node of a cell keeps; `drops` says that `none` may be chosen instead."""

    keep: Mapping[int, int]
    drops: bool

    @classmethod
    def of_space(cls, cell: Cell) -> "Structure":
        """That of the cell's own definition."""
        into = {node: len(cell.incoming(node)) for node in cell.targets}
        most = cell.keep or max(into.values())
        return cls({node: min(most, count) for node, count in into.items()}, cell.keep is None)

    @classmethod
    def of_rule(cls, rule: DiscretisationRule, cell: Cell) -> "Structure | None":
        """That of a rule; None for one that keeps several candidates an edge, whatever gates say.

        The rule is asked twice: without `none`, and with `none` ahead of all others.
        """
        real = real_candidates(cell)
        gates = torch.where(real, 0.5, 1.0)
        kept = rule(cell, gates, real)
        if any(len(names) > 1 for names in kept.values()):
            return None
        left = dict.fromkeys(cell.targets, 0)
        for edge in cell.edges:
            left[edge.target] += edge.name in kept
        return cls(left, len(rule(cell, gates, every_candidate(cell))) < len(kept))


def every_candidate(cell: Cell) -> Tensor:
    """(E, O) bool: where a candidate stands, `none` included."""
    return torch.tensor(
        [[o < len(edge.candidates) for o in range(cell.width)] for edge in cell.edges]
    )


def decisions(
    cell: Cell, structure: Structure, gates: Tensor, alive: Tensor, costs: Sequence[Tensor]
) -> list[list[Option]]:
    """The independent decisions of a cell, each as the options that no other one beats.

    gates (E, O), alive (E, O), costs (E, O) each. A cell whose output is its last node alone is one
    decision where `none` may stand on its edges: some of its combinations cut it off.
    """
    edges = [
        list(_on_edge(cell, e, gates[e], alive[e], [cost[e] for cost in costs], structure.drops))
        for e in range(len(cell.edges))
    ]
    if not structure.drops:
        return [
            _of_node([edges[e] for e in cell.incoming(node) if edges[e]], structure.keep[node])
            for node in cell.targets
        ]
    if cell.output == "concat":
        return [undominated(options) for options in edges if options]
    return [_of_cell(cell, edges, len(costs))]


def connected(cell: Cell, gates: Tensor, alive: Tensor) -> dict[str, tuple[str, ...]]:
    """The best cell whose output depends on its input: of largest sum of log gates, `none` counted.

    gates (E, O), alive (E, O). For a rule that lets `none` win so many edges that nothing gets
    through; an edge keeps one candidate, or none.

    Raises:
        ValueError: nothing alive leads from the input to the output.
    """
    edges = [list(_on_edge(cell, e, gates[e], alive[e], [], True)) for e in range(len(cell.edges))]
    best = _of_cell(cell, edges, 0)
    if not best:
        raise ValueError(
            "no way from a cell's input to its output is left; prune less, or "
            "widen space.candidates"
        )
    return {edge: (name,) for edge, name in best[0].kept}


def _on_edge(
    cell: Cell, e: int, gates: Tensor, alive: Tensor, costs: Sequence[Tensor], drops: bool
) -> Iterator[Option]:
    edge, tiny = cell.edges[e], torch.finfo(torch.float32).tiny
    for o, name in enumerate(edge.candidates):
        if alive[o] and (drops or name != "none"):
            kept = ((edge.name, name),) if name != "none" else ()
            score = math.log(max(float(gates[o]), tiny))
            yield Option(kept, score, tuple(float(cost[o]) for cost in costs))


def _of_node(edges: Sequence[Sequence[Option]], keep: int) -> list[Option]:
    few = [undominated(options) for options in edges]
    return undominated(
        sum(picked[1:], picked[0])
        for chosen in combinations(few, min(keep, len(few)))
        for picked in product(*chosen)
        if picked
    )


def _of_cell(cell: Cell, edges: Sequence[Sequence[Option]], kinds: int) -> list[Option]:
    """Options for a whole cell, of those through which its output depends on its input."""
    fronts = {frozenset(range(cell.inputs)): [Option(costs=(0.0,) * kinds)]}
    for edge, options in zip(cell.edges, edges, strict=True):
        grown: dict[frozenset[int], list[Option]] = {}
        for reached, front in fronts.items():
            for option in options or [Option(costs=(0.0,) * kinds)]:
                on = bool(option.kept) and edge.source in reached
                into = reached | {edge.target} if on else reached
                grown.setdefault(into, []).extend(before + option for before in front)
        fronts = {reached: undominated(front) for reached, front in grown.items()}
    return undominated(
        option
        for front in fronts.values()
        for option in front
        if reachable(cell, {edge: (name,) for edge, name in option.kept})
    )


def undominated(options: Iterable[Option]) -> list[Option]:
    """Without those that another one equals or beats in score and in every cost."""
    ordered = sorted(options, key=lambda option: (option.costs, -option.score))
    if not ordered:
        return []
    table = np.array([(*option.costs, -option.score) for option in ordered])
    kept: list[int] = []
    front = np.empty_like(table)
    for i, row in enumerate(table):
        if not (front[: len(kept)] <= row).all(1).any():
            front[len(kept)] = row
            kept.append(i)
    return [ordered[i] for i in kept]
