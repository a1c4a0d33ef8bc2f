"""The baseline of every comparison: an architecture drawn at random.

Source: Li & Talwalkar 2019, arXiv:1902.07638, section 3; Yang et al. 2020, arXiv:1912.12522,
section 3.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice, Option
from search_spaces.space import Space
from strategies.searchers.searcher import Searcher
from strategies.shares import real_options


def drawn(choice: Choice, generator: torch.Generator) -> dict[str, tuple[str, ...]]:
    """Legal rows at random: `keep` distinct ones per target, options with equal probability among
    those that fit the option drawn before.

    What cuts the output off from the input is drawn again (possible if rows may hold a zero).
    """

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    while True:
        kept: dict[str, tuple[str, ...]] = {}
        option: Option | None = None
        for target in choice.targets:
            into = choice.into(target)
            order = torch.randperm(len(into), generator=generator).tolist()
            for position in sorted(order[: choice.keep]):
                row = choice.rows[into[position]]
                options = [
                    o
                    for o in row.options
                    if (o.kind != "zero" or choice.keep is None) and o.follows(option)
                ]
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
            name: drawn(choice, self.generator) for name, choice in self.space.choices.items()
        }
        return Architecture.of(self.space, choices)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["generator"])
