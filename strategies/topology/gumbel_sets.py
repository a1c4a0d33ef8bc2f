"""Gumbel-max over sets of edges: of all pairs of edges into a node one is drawn and runs. ROME, v1.

Source: Wang et al. 2023, arXiv:2011.11233, version 1.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from search_spaces.choice import Choice
from strategies.relaxation.masked import masked_softmax
from strategies.topology.gumbel_top import GumbelTop


class GumbelSets(GumbelTop):
    """One beta for each set of `choice.keep` rows into a target; a set has probability
    softmax(beta) over the target's sets.

    Factors are 1 for the rows of the drawn set, 0 for others; backward, the sum of the relaxed
    draws of all sets with the row. Of sets with dead rows only those with the fewest are drawn.
    Settings and errors: `GumbelTop`.
    """

    def size(self, choice: Choice) -> int:
        """The number of sets S, 20 for a DARTS cell; that of rows if every row is kept."""
        return len(sets(choice)) or len(choice.rows)

    def forward(
        self, beta: Tensor, choice: Choice, alive: Tensor
    ) -> tuple[Tensor, Sequence[bool] | None]:
        """beta (S,), alive rows (R,) -> factors (R,), and which rows run, read on the host."""
        if choice.keep is None:
            return alive.to(beta.dtype), None
        members, offered = self._offered(choice, alive)
        noisy = self.noisy(beta).expand_as(offered)
        soft = masked_softmax(noisy / self.temperature, offered)  # (targets, S)
        best = noisy.masked_fill(~offered, -torch.inf).argmax(1, keepdim=True)
        hard = torch.zeros_like(soft).scatter(1, best, 1.0)
        runs = (hard.sum(0) @ members) > 0
        drawn = (hard + (soft - soft.detach())).sum(0)
        return torch.where(runs, drawn @ members, 0.0), runs.tolist()

    def expected(self, beta: Tensor, choice: Choice, alive: Tensor) -> Tensor:
        """The probability (R,) of the likeliest set with the row: largest in the likeliest set."""
        if choice.keep is None:
            return alive.to(beta.dtype)
        members, offered = self._offered(choice, alive)
        likely = masked_softmax(beta.expand_as(offered), offered).sum(0)
        return (likely[:, None] * members).amax(0)

    def _offered(self, choice: Choice, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Alive members (S, R), 0 or 1; (targets, S) bool: sets that may be drawn."""
        found = sets(choice)
        rows = torch.tensor([[r in one for r in range(len(choice.rows))] for one in found])
        target = [choice.rows[one[0]].target for one in found]
        of = torch.tensor([[at == i for at in target] for i in choice.targets]).to(alive.device)
        members = rows.to(alive.device) & alive
        left = torch.where(of, members.sum(1), 0)
        return members.float(), of & (left == left.amax(1, keepdim=True))


def sets(choice: Choice) -> list[tuple[int, ...]]:
    """The sets of positions of rows that a target may keep, target by target."""
    if choice.keep is None:
        return []
    into = [choice.into(target) for target in choice.targets]
    return [one for rows in into for one in combinations(rows, min(choice.keep, len(rows)))]
