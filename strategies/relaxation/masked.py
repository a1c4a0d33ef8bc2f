"""Softmax over the candidates that are not pruned: the piece that several relaxations share."""

import torch
from torch import Tensor


def masked_softmax(logits: Tensor, alive: Tensor) -> Tensor:
    """Softmax over the alive candidates: logits (E, O), alive (E, O) -> gates (E, O).

    What is pruned, and all of a dead edge, gets exactly 0 and sends back a gradient of exactly 0.
    """
    dead = ~alive.any(1, keepdim=True)
    finite = logits.masked_fill(~(alive | dead), -torch.inf)  # a dead row: no NaN gradient
    return torch.where(alive, finite.softmax(-1), 0.0)
