"""Softmax over the candidates that are not pruned, shared by several relaxations."""

import torch
from torch import Tensor


def masked_softmax(logits: Tensor, alive: Tensor) -> Tensor:
    """Softmax over the alive candidates: logits (R, O), alive (R, O) -> gates (R, O).

    Pruned candidates, and all candidates of a dead edge, get exactly 0 and a gradient of exactly 0.
    """
    dead = ~alive.any(1, keepdim=True)
    finite = logits.masked_fill(~(alive | dead), -torch.inf)  # avoids a NaN gradient in dead rows
    return torch.where(alive, finite.softmax(-1), 0.0)
