"""The baseline every comparison needs: an architecture drawn from the space, no search at all.

Source: Li & Talwalkar 2019, arXiv:1902.07638, section 3; Yang et al. 2020, arXiv:1912.12522,
section 3.
"""

from typing import Any

import torch

from search_spaces.architecture import Architecture, reachable
from search_spaces.space import Cell, Space


def random_cell(cell: Cell, generator: torch.Generator) -> dict[str, tuple[str, ...]]:
    """One legal cell, uniformly: `keep` distinct inputs a node, candidates by equal chance.

    A cell whose output does not depend on its input is drawn again (possible where `none` may
    stand on edges).
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


class RandomSearch:
    """Draws an architecture; the supernet is never trained.

    The draw depends on the seed of torch's global generator at construction, as every strategy's
    start does.
    """

    searches = False

    def __init__(self, space: Space):
        self.space = space
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))

    def architecture(self, **meta: Any) -> Architecture:
        """A newly drawn architecture."""
        choices = {
            name: random_cell(cell, self.generator) for name, cell in self.space.groups.items()
        }
        return Architecture.of(self.space, choices, **meta)
