"""The structure of an architecture that a discretisation rule decides on.

Rules are opaque functions: calling one with test gates shows whether it keeps a number of edges per
node, or one candidate on every edge.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.space import Cell
from strategies.contracts import DiscretisationRule
from strategies.shares import real_candidates


@dataclass(frozen=True)
class Structure:
    """How many edges each node of a cell keeps; `drops` means that `none` may be chosen instead."""

    keep: Mapping[int, int]
    drops: bool

    @classmethod
    def of_space(cls, cell: Cell) -> "Structure":
        """The structure given by the cell's definition."""
        into = {node: len(cell.incoming(node)) for node in cell.targets}
        most = cell.keep or max(into.values())
        return cls({node: min(most, count) for node, count in into.items()}, cell.keep is None)

    @classmethod
    def of_rule(cls, rule: DiscretisationRule, cell: Cell) -> "Structure | None":
        """The structure of a rule; None if it keeps several candidates per edge, regardless of
        gates.

        The rule is called twice: without `none`, and with `none` as the largest gate.
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
    """(E, O) bool: whether there is a candidate, `none` included."""
    return torch.tensor(
        [[o < len(edge.candidates) for o in range(cell.width)] for edge in cell.edges]
    )
