"""The baseline of every comparison: an architecture drawn at random, without a search.

Source: Li & Talwalkar 2019, arXiv:1902.07638, section 3; Yang et al. 2020, arXiv:1912.12522,
section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture, reachable
from search_spaces.space import Cell, Space
from strategies.discretisation.decisions import Structure
from strategies.shares import real_candidates
from supernets.final_costs import total

DRAWS = 5000


def random_cell(cell: Cell, generator: torch.Generator) -> dict[str, tuple[str, ...]]:
    """A random legal cell: `keep` distinct inputs per node, candidates with equal probability.

    A cell whose output does not depend on its input is drawn again (possible if edges may hold
    `none`).
    """

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    while True:
        kept: dict[str, tuple[str, ...]] = {}
        for node in cell.targets:
            incoming = cell.incoming(node)
            order = torch.randperm(len(incoming), generator=generator).tolist()
            for position in sorted(order[: cell.keep]):
                edge = cell.edges[incoming[position]]
                names = [n for n in edge.candidates if n != "none" or cell.keep is None]
                name = names[pick(len(names))]
                if name != "none":
                    kept[edge.name] = (name,)
        if reachable(cell, kept):
            return kept


def pruned_at_random(
    space: Space, costs: Mapping[str, Tensor], target: int, generator: torch.Generator
) -> Architecture:
    """Cuts candidates in random order until their cost falls to `target`.

    The control for pruning searches. costs: group -> (E, O), as counted by `candidate_macs`. Cuts
    that would go below the target, or leave a node without an input, are skipped, so the final cost
    is at or just above the target.
    """
    left = {name: real_candidates(cell) for name, cell in space.groups.items()}
    total = sum(int(costs[name][table].sum()) for name, table in left.items())
    places = [(n, e, o) for n, table in left.items() for e, o in table.nonzero().tolist()]
    for i in torch.randperm(len(places), generator=generator).tolist():
        name, e, o = places[i]
        cell, cost = space.groups[name], int(costs[name][e, o])
        into = cell.incoming(cell.edges[e].target)
        if total > target and total - cost >= target and int(left[name][into].sum()) > 1:
            left[name][e, o] = False
            total -= cost
    choices = {
        name: {
            edge.name: tuple(edge.candidates[o] for o in on.nonzero().flatten().tolist())
            for edge, on in zip(cell.edges, left[name], strict=True)
            if on.any()
        }
        for name, cell in space.groups.items()
    }
    return Architecture.of(space, choices)


class RandomSearch:
    """Draws an architecture; no supernet is trained. `alpha_lr_scale` is unused: there are no
    alphas.

    Like any strategy's initialisation, the draw depends on torch's global generator at
    construction.
    """

    searches = False

    def __init__(self, space: Space, alpha_lr_scale: float | None = None):
        self.space = space
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))

    def structures(self) -> dict[str, Structure]:
        """The structure drawn for each group."""
        return {name: Structure.of_space(cell) for name, cell in self.space.groups.items()}

    def within(
        self, costs: Sequence[Mapping[str, Tensor]], limits: Sequence[float], **meta: Any
    ) -> Architecture | None:
        """The first of at most `DRAWS` drawn architectures within the limits, or None.

        costs: group -> (E, O) each. All architectures within the limits are equally likely.
        """
        for _ in range(DRAWS):
            drawn = self.architecture(**meta)
            spent = (total(drawn, self.space, tables) for tables in costs)
            if all(cost <= limit for cost, limit in zip(spent, limits, strict=True)):
                return drawn
        return None

    def architecture(self, **meta: Any) -> Architecture:
        """A newly drawn architecture."""
        choices = {
            name: random_cell(cell, self.generator) for name, cell in self.space.groups.items()
        }
        return Architecture.of(self.space, choices, **meta)
