"""How much of the alphas' gradient is signal, and how much is noise of the batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Signal:
    """The ratio of the mean gradient to the deviation of single ones, over the steps of an epoch.

    For g_t, the gradient of all alphas and betas in step t of n, with mean m and variance v in each
    coordinate, it is sqrt(sum(m^2 - v / n) / sum(v)): what noise alone would add to the mean is
    taken off, so the ratio is 0 in expectation where there is no signal. A ratio r means that about
    1 / r^2 steps are needed until the mean stands out from the noise. Our own choice of a measure.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.sums: Tensor | float = 0.0  # of gradients and of their squares: (2, coordinates)

    def add(self, parameters: Iterable[nn.Parameter]) -> None:
        """Takes the gradients of a step; a parameter without one counts as zeros."""
        found = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in parameters]
        gradient = torch.cat([one.flatten().double() for one in found])
        self.sums = self.sums + torch.stack([gradient, gradient.square()])
        self.steps += 1

    def ratio(self) -> float:
        """The ratio; nan after fewer than 2 steps, or if all gradients are equal."""
        if self.steps < 2:
            return float("nan")
        mean, square = torch.as_tensor(self.sums) / self.steps
        variance = (square - mean.square()).clamp_min(0) * self.steps / (self.steps - 1)
        if not variance.any():
            return float("nan")
        signal = (mean.square() - variance / self.steps).sum().clamp_min(0)
        return float((signal / variance.sum()).sqrt())

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.steps = int(state["steps"])
        self.sums = torch.as_tensor(state["sums"], device=device)
