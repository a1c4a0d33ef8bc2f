"""The vote of several teachers, and the distillation loss of a student."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_vote(probabilities: Tensor) -> Tensor:
    """The mean of the teachers' probabilities: (K, B, classes) -> (B, classes)."""
    return probabilities.mean(0)


def hard_vote(probabilities: Tensor) -> Tensor:
    """The majority class of (K, B, classes) as one-hot (B, classes); the mean in a tie."""
    votes = F.one_hot(probabilities.argmax(2), probabilities.size(2)).sum(0)  # (B, classes)
    winners = votes == votes.amax(1, keepdim=True)
    tied = winners.sum(1, keepdim=True) > 1
    return torch.where(tied, soft_vote(probabilities), winners.to(probabilities.dtype))


VOTES: dict[str, Callable[[Tensor], Tensor]] = {"soft": soft_vote, "hard": hard_vote}


def softened(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / T) over the last dimension, at least in single precision."""
    return _log_softened(logits, temperature).exp()


def distillation(logits: Tensor, q: Tensor, temperature: float) -> Tensor:
    """T^2 KL(q || softmax(logits / T)), mean over the batch; logits and q are (B, classes).

    T^2 keeps the gradient's size independent of T. Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    log_p = _log_softened(logits, temperature)
    return temperature**2 * F.kl_div(log_p, q, reduction="batchmean")


def _log_softened(logits: Tensor, temperature: float) -> Tensor:
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (precise / temperature).log_softmax(-1)
