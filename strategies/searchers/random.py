"""The baseline of every comparison: an architecture drawn at random.

Source: Li & Talwalkar 2019, arXiv:1902.07638, section 3; Yang et al. 2020, arXiv:1912.12522,
section 3.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture, reachable
from search_spaces.space import Cell, Space
from strategies.contracts import Searcher
from strategies.shares import real_candidates


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


class RandomSearch(Searcher):
    """Draws architectures; all are equally likely, also within a budget. `alpha_lr_scale` is
    unused: there are no alphas.

    Like any strategy's initialisation, the draw depends on torch's global generator at
    construction.
    """

    def __init__(self, space: Space, alpha_lr_scale: float | None = None, asks: int | None = None):
        super().__init__(space, asks)
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))

    def ask(self) -> Architecture:
        """A newly drawn architecture."""
        choices = {
            name: random_cell(cell, self.generator) for name, cell in self.space.groups.items()
        }
        return Architecture.of(self.space, choices)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["generator"])
