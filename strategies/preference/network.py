"""Alphas as a function of a preference among losses, and of a device: a preference hypernetwork.

The idea is MODNAS's (Sukthanker et al. 2024, arXiv:2402.18213): one network gives the architecture
parameters for every preference and device, which is described by latencies of reference networks.
The form of the network is ours.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from search_spaces.choice import Choice
from strategies.shares import every_option, same_target


class PreferenceNetwork(nn.Module):
    """Preference (B, L) and features of the device (B, F) -> alphas (B, R, O) of each choice.

    Two hidden layers. The output starts near 0, so that all gates start equal.
    """

    def __init__(self, choices: Mapping[str, Choice], inputs: int, width: int):
        super().__init__()
        self.shapes = {name: (len(c.rows), c.width) for name, c in choices.items()}
        self.layers = nn.Sequential(
            nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.last = nn.Linear(width, sum(r * o for r, o in self.shapes.values()))
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.last.bias.zero_()

    def forward(self, preference: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Choice -> alphas (B, R, O)."""
        given = torch.cat([2 * preference - 1, features], 1)
        parts = self.last(self.layers(given)).split([r * o for r, o in self.shapes.values()], 1)
        shaped = zip(self.shapes.items(), parts, strict=True)
        return {name: part.unflatten(1, shape) for (name, shape), part in shaped}


def simplex(count: int, losses: int, generator: torch.Generator) -> Tensor:
    """(count, losses) preferences from the uniform Dirichlet(1, ..., 1): exponentials, normed."""
    draws = torch.rand(count, losses, generator=generator).clamp_min(1e-12).log().neg()
    return draws / draws.sum(1, keepdim=True)


def marginals(alphas: Tensor, choice: Choice) -> Tensor:
    """Alphas (B, R, O) -> the probability that a row keeps an option, (B, R, O).

    A row with an option of its own: a softmax. Rows that compete for `keep` places share a softmax
    over all their options that are no zeros, times `keep`; no row is likelier than 1.
    """
    if choice.keep is None:
        there = every_option(choice)
        return alphas.masked_fill(~there, -torch.inf).softmax(2)
    there = torch.tensor(choice.offers(zero=False))
    shares = (alphas - alphas.amax((1, 2), keepdim=True)).exp() * there  # (B, R, O)
    into = same_target(choice) @ shares.sum(2, keepdim=True)  # (B, R, 1)
    most = choice.keep * shares / into.clamp_min(torch.finfo(shares.dtype).tiny)
    return most / most.sum(2, keepdim=True).clamp_min(1.0)
