"""How undecided a softmax is, and the temperature at which it is as undecided as one wants."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from strategies.relaxation.masked import masked_softmax

COLDEST, HOTTEST = 1e-3, 10.0
HALVINGS = 40  # of the logarithm's range, 9.2: an error of 1e-11
Table = tuple[Tensor, Tensor]  # alphas (E, O), alive (E, O)


def mean_entropy(tables: Sequence[Table], temperature: Tensor | float) -> Tensor:
    """h: entropy of softmax(a / temperature) over ln n, in the mean over all edges; 0-dim float64.

    1 is uniform, 0 is one-hot. An edge with n < 2 alive candidates has nothing to decide and does
    not count; NaN where that leaves no edge.
    """
    shares = []
    for alphas, alive in tables:
        gates = masked_softmax(alphas.detach().double() / temperature, alive)
        open_edges = alive.sum(1) > 1
        entropy = torch.special.entr(gates).sum(1)  # -p ln p, and 0 at p = 0
        shares.append((entropy / alive.sum(1).double().log())[open_edges])
    return torch.cat(shares).mean()


def temperature_at(tables: Sequence[Table], target: float) -> Tensor:
    """The temperature at which `mean_entropy` is `target`, by bisection of its logarithm; 0-dim.

    The mean entropy rises with temperature (dH/dT = Var(a) / T^3 >= 0), so there is one solution.
    Outside [0.001, 10] the answer is 10 above, and infinity below: there logits are (nearly) equal,
    and no temperature that a float32 can use would tell them apart.
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
