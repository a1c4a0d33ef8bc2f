"""What one pass of a supernet mixes: gates, and the options that run, of each choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.space import Space

Active = Sequence[Sequence[int]]


class GroupMixture(NamedTuple):
    """One choice: gates (R, O), factors (R,) or None for ones, and the options that run per row;
    a row in which none runs is off. `keep` (B, R) is what drop-path multiplies each image's output
    of a row by; a cell draws it for its own pass, None where nothing is dropped."""

    gates: Tensor
    factors: Tensor | None
    active: Active
    keep: Tensor | None = None

    def row(self, r: int) -> "GroupMixture":
        """The part of one row."""
        factors = None if self.factors is None else self.factors[r : r + 1]
        return GroupMixture(self.gates[r : r + 1], factors, self.active[r : r + 1])


@dataclass(frozen=True)
class Mixture:
    """Choice -> its part of the mixture."""

    groups: Mapping[str, GroupMixture]

    @classmethod
    def of(cls, architecture: Architecture, space: Space, device: torch.device) -> "Mixture":
        """The discrete network's mixture: the kept candidates run, each with gate 1."""
        groups = {}
        for name, active in architecture.kept(space).items():
            gates = torch.zeros(len(active), space.choices[name].width, device=device)
            for r, row in enumerate(active):
                gates[r, row] = 1.0
            groups[name] = GroupMixture(gates, None, active)
        return cls(groups)


def everything_active(alive: Tensor) -> Active:
    """The positions of alive (R, O) as Python ints, per row. Reads the device once."""
    return [[o for o, on in enumerate(row) if on] for row in alive.tolist()]
