"""Edge normalisation: softmax per node. Xu et al. 2020, arXiv:1907.05737, section 3.3."""

from collections.abc import Hashable

import torch
from torch import Tensor

from search_spaces.choice import Choice
from strategies.contracts import Topology
from strategies.shares import rows_into


class EdgeNormalisation(Topology):
    """Factors per row that sum to one over the rows into each target."""

    def __init__(self) -> None:
        super().__init__()
        self._into: dict[tuple[int, torch.device], tuple[Choice, Tensor]] = {}

    def forward(self, beta: Tensor, choice: Choice, alive: Tensor) -> tuple[Tensor, None]:
        """beta (R,), alive rows (R,) -> factors (R,); a dead row gets exactly 0. All rows run."""
        into = self._of(choice, beta.device) & alive  # (targets, R)
        dead = ~into.any(1, keepdim=True)
        logits = beta.expand_as(into).masked_fill(~(into | dead), -torch.inf)
        return torch.where(into, logits.softmax(-1), 0.0).sum(0), None

    def _of(self, choice: Choice, device: torch.device) -> Tensor:
        """(targets, R): which rows lead into which target. Kept, as a copy from the host would
        synchronise in every pass; by identity, as hashing a choice takes longer."""
        kept, into = self._into.get((id(choice), device), (None, None))
        if kept is not choice or into is None:
            into = rows_into(choice).to(device)
            self._into[id(choice), device] = choice, into
        return into

    def constants(self) -> Hashable:
        return ()
