"""What one pass of a supernet mixes: per group of layers, gates and the candidates that run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.space import Space

Active = Sequence[Sequence[int]]


class GroupMixture(NamedTuple):
    """One group: gates (E, O), factors (E,) or None for ones, candidates to run per edge."""

    gates: Tensor
    factors: Tensor | None
    active: Active


@dataclass(frozen=True)
class Mixture:
    """Group name -> its part of the mixture."""

    groups: Mapping[str, GroupMixture]

    @classmethod
    def of(cls, architecture: Architecture, space: Space, device: torch.device) -> "Mixture":
        """The discrete network's mixture: the kept candidates run, each with gate 1."""
        groups = {}
        for name, cell in space.groups.items():
            kept = architecture.choices[name]
            active = [
                [
                    o
                    for o, candidate in enumerate(edge.candidates)
                    if candidate in kept.get(edge.name, ())
                ]
                for edge in cell.edges
            ]
            gates = torch.zeros(len(cell.edges), cell.width, device=device)
            for e, row in enumerate(active):
                gates[e, row] = 1.0
            groups[name] = GroupMixture(gates, None, active)
        return cls(groups)


def everything_active(alive: Tensor) -> Active:
    """The positions of alive (E, O) as Python ints, per edge. Reads the device once."""
    return [[o for o, on in enumerate(row) if on] for row in alive.tolist()]
