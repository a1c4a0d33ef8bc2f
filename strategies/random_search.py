"""The baseline of every comparison: an architecture drawn at random, without a search.

Source: Li & Talwalkar 2019, arXiv:1902.07638, section 3; Yang et al. 2020, arXiv:1912.12522,
section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.space import Space
from strategies.discretisation.decisions import Structure
from strategies.shares import real_options
from supernets.final_costs import total

DRAWS = 5000


def drawn(choice: Choice, generator: torch.Generator) -> dict[str, tuple[str, ...]]:
    """Legal rows at random: `keep` distinct ones per target, options with equal probability.

    What cuts the output off from the input is drawn again (possible if rows may hold a zero).
    """

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    while True:
        kept: dict[str, tuple[str, ...]] = {}
        for target in choice.targets:
            into = choice.into(target)
            order = torch.randperm(len(into), generator=generator).tolist()
            for position in sorted(order[: choice.keep]):
                row = choice.rows[into[position]]
                options = [o for o in row.options if o.kind != "zero" or choice.keep is None]
                option = options[pick(len(options))]
                if option.kind != "zero":
                    kept[row.name] = (option.name,)
        if choice.connects(kept):
            return kept


def pruned_at_random(
    space: Space, costs: Mapping[str, Tensor], target: int, generator: torch.Generator
) -> Architecture:
    """Cuts candidates in random order until their cost falls to `target`.

    The control for pruning searches. costs: choice -> (R, O), as counted by `candidate_macs`. Cuts
    that would go below the target, or leave a node without an input, are skipped, so the final cost
    is at or just above the target.
    """
    left = {name: real_options(choice) for name, choice in space.choices.items()}
    total = sum(int(costs[name][table].sum()) for name, table in left.items())
    places = [(n, r, o) for n, table in left.items() for r, o in table.nonzero().tolist()]
    for i in torch.randperm(len(places), generator=generator).tolist():
        name, r, o = places[i]
        choice, cost = space.choices[name], int(costs[name][r, o])
        into = choice.into(choice.rows[r].target)
        if total > target and total - cost >= target and int(left[name][into].sum()) > 1:
            left[name][r, o] = False
            total -= cost
    choices = {
        name: {
            row.name: tuple(row.names[o] for o in on.nonzero().flatten().tolist())
            for row, on in zip(choice.rows, left[name], strict=True)
        }
        for name, choice in space.choices.items()
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
        """The structure drawn for each choice."""
        return {name: Structure.of_space(choice) for name, choice in self.space.choices.items()}

    def within(
        self, costs: Sequence[Mapping[str, Tensor]], limits: Sequence[float], **meta: Any
    ) -> Architecture | None:
        """The first of at most `DRAWS` drawn architectures within the limits, or None.

        costs: choice -> (R, O) each. All architectures within the limits are equally likely.
        """
        for _ in range(DRAWS):
            found = self.architecture(**meta)
            spent = (total(found, self.space, tables) for tables in costs)
            if all(cost <= limit for cost, limit in zip(spent, limits, strict=True)):
                return found
        return None

    def architecture(self, **meta: Any) -> Architecture:
        """A newly drawn architecture."""
        choices = {
            name: drawn(choice, self.generator) for name, choice in self.space.choices.items()
        }
        return Architecture.of(self.space, choices, **meta)
