"""The normalised entropy of a softmax, and the temperature at which it has a given value."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from strategies.relaxation.masked import masked_softmax

COLDEST, HOTTEST = 1e-3, 10.0
HALVINGS = 40  # of the range of log temperature, 9.2: an error of 1e-11
Table = tuple[Tensor, Tensor]  # alphas (R, O), alive (R, O)


def mean_entropy(tables: Sequence[Table], temperature: Tensor | float) -> Tensor:
    """h: entropy of softmax(a / temperature) divided by ln n, averaged over edges; 0-dim float64.

    1 is uniform, 0 is one-hot. Edges with n < 2 alive candidates have no choice and are ignored;
    NaN if no edge is left.
    """
    shares = []
    for alphas, alive in tables:
        gates = masked_softmax(alphas.detach().double() / temperature, alive)
        open_edges = alive.sum(1) > 1
        entropy = torch.special.entr(gates).sum(1)  # -p ln p, and 0 at p = 0
        shares.append((entropy / alive.sum(1).double().log())[open_edges])
    return torch.cat(shares).mean()


def temperature_at(tables: Sequence[Table], target: float) -> Tensor:
    """The temperature at which `mean_entropy` is `target`, by bisection on its logarithm; 0-dim.

    The mean entropy rises with temperature (dH/dT = Var(a) / T^3 >= 0), so there is one solution. A
    solution above 10 returns 10, one below 0.001 returns infinity: then logits are (nearly) equal,
    and no temperature usable in float32 separates them.
    """
    device = tables[0][0].device
    low = torch.tensor(math.log(COLDEST), dtype=torch.float64, device=device)
    high = torch.tensor(math.log(HOTTEST), dtype=torch.float64, device=device)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_hot = mean_entropy(tables, middle.exp()) > target
        low, high = torch.where(too_hot, low, middle), torch.where(too_hot, middle, high)
    reachable = mean_entropy(tables, COLDEST) <= target
    return torch.where(reachable, high.exp(), torch.inf)
