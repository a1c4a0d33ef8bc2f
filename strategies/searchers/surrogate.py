"""A surrogate of scores that gates can be put into: a Gaussian process, multilinear in the gates.

Source: Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, sections 2.2 and 5.4.1;
the kernel is ours.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.space import Space
from strategies.searchers.encoding import Kept

THETAS = (0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # ours, as are the noises
NOISES = (1e-3, 1e-2, 1e-1)  # variance relative to that of the scores


def codes(space: Space, kept: Kept) -> list[int]:
    """The position of the option that each row of each choice keeps: of the row's zero, or the
    width of the choice, for a row that is dropped."""
    found = []
    for name, choice in space.choices.items():
        for row in choice.rows:
            zeros = [o for o, option in enumerate(row.options) if option.kind == "zero"]
            absent = zeros[0] if zeros and choice.keep is None else choice.width
            names = kept[name].get(row.name, ())
            found.append(row.names.index(names[0]) if names else absent)
    return found


def gates_of(space: Space, probabilities: Mapping[str, Tensor]) -> Tensor:
    """Choice -> probabilities (B, R, O), as gates of all rows (B, R', O' + 1) in double precision.

    A row that may be dropped has what is left of 1 at the width of its choice.
    """
    widest = max(choice.width for choice in space.choices.values())
    parts = []
    for name, choice in space.choices.items():
        given = probabilities[name].double()
        left = (1 - given.sum(2, keepdim=True)).clamp_min(0.0)
        padding = given.new_zeros(*given.shape[:2], widest - choice.width)
        parts.append(torch.cat([given, left, padding], 2))
    return torch.cat(parts, 1)


class GatedProcess:
    """A Gaussian process with the kernel prod_r (1 + theta a_r) / (1 + theta), a_r = 1 where two
    architectures agree in row r, else 0.

    Its posterior mean is a sum of products of one term per row. So its value at gates, a_r being
    the gate of the other's option, is its mean over architectures whose rows are drawn
    independently by these gates, exactly. theta (how much single rows count against their
    combinations) and the noise are those of largest marginal likelihood on a grid.
    """

    def __init__(self, known: Tensor, scores: Tensor):
        """known (N, R) codes, scores (N,)."""
        self.known, self.mean = known, scores.mean()
        self.scale = scores.std().clamp_min(1e-12) if len(scores) > 1 else scores.new_ones(())
        values = (scores - self.mean) / self.scale
        agree = (known[:, None] == known[None]).double()  # (N, N, R)
        tried = [
            _fitted(agree, values, theta, noise)
            for theta, noise in itertools.product(THETAS, NOISES)
        ]
        _, self.theta, self.weights = max(tried, key=lambda one: one[0])

    def __call__(self, gates: Tensor) -> Tensor:
        """Gates (B, R, O) -> the expected score (B,); differentiable."""
        agree = gates[:, torch.arange(gates.size(1)), self.known]  # (B, N, R)
        return self.mean + self.scale * (_kernel(agree, self.theta) @ self.weights)


def _kernel(agree: Tensor, theta: float) -> Tensor:
    """(..., R) -> (...)."""
    return ((1 + theta * agree) / (1 + theta)).prod(-1)


def _fitted(
    agree: Tensor, values: Tensor, theta: float, noise: float
) -> tuple[float, float, Tensor]:
    """The log marginal likelihood, theta, and the weights of the known (N,)."""
    kernel = _kernel(agree, theta) + noise * torch.eye(len(values), dtype=torch.double)
    factor = torch.linalg.cholesky(kernel)
    weights = torch.cholesky_solve(values[:, None], factor)[:, 0]
    likelihood = -0.5 * values @ weights - factor.diagonal().log().sum()
    return float(likelihood) - 0.5 * len(values) * math.log(2 * math.pi), theta, weights


def encoded(space: Space, kept: Sequence[Kept]) -> Tensor:
    """Codes of architectures (N, R)."""
    return torch.tensor([codes(space, one) for one in kept])


def decided(space: Space, kept: Sequence[Kept]) -> Tensor:
    """The gates (N, R, O + 1) of architectures: one of each row is 1."""
    width = 1 + max(choice.width for choice in space.choices.values())
    return F.one_hot(encoded(space, kept), width).double()
