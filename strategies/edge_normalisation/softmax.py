"""Edge normalisation: softmax per node. Xu et al. 2020, arXiv:1907.05737, section 3.3."""

from collections.abc import Hashable

import torch
from torch import Tensor

from search_spaces.choice import Choice
from strategies.contracts import EdgeNormalisation


class EdgeSoftmax(EdgeNormalisation):
    """Factors per row that sum to one over the rows into each target."""

    def __init__(self) -> None:
        super().__init__()
        self._into: dict[tuple[Choice, torch.device], Tensor] = {}

    def forward(self, beta: Tensor, choice: Choice, alive: Tensor) -> Tensor:
        """beta (R,), alive rows (R,) -> factors (R,); a dead row gets exactly 0."""
        place = choice, beta.device
        if place not in self._into:  # cached: a copy from the host would synchronise in every pass
            into = torch.tensor([[row.target == i for row in choice.rows] for i in choice.targets])
            self._into[place] = into.to(beta.device)
        into = self._into[place] & alive  # (targets, R)
        dead = ~into.any(1, keepdim=True)
        logits = beta.expand_as(into).masked_fill(~(into | dead), -torch.inf)
        return torch.where(into, logits.softmax(-1), 0.0).sum(0)

    def constants(self) -> Hashable:
        return ()
