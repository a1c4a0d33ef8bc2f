"""The alphas of a cell learn more or less, by what the cell contributes. D-DARTS.

Source: Heuillet et al. 2021, arXiv:2108.09306. The text of the paper could not be read; the public
code adds a loss -(M_c - M) / M of cell c, with M the mean over the cells, but computes it from
Python numbers, so that it has no gradient. What is computed here instead is ours.
"""

from collections.abc import Hashable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.settings import Share
from strategies.micro_batches import in_parts
from strategies.update.first_order import FirstOrder
from supernets.mixture import GroupMixture, Mixture

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy

TINY = 1e-12


class Ablation(FirstOrder):
    """First order, but the alphas of cell c get 1 + weight * clip((M_c - M) / |M|, -1, 1) times the
    gradient of the cross-entropy; M is the mean of the M_c.

    The marginal contribution M_c is the rise of the cross-entropy of the val batch when cell c is
    ablated: its gates are drawn anew, uniformly from [0, 1]. A cell is a choice; layers that share
    one are ablated together. Losses that read the gates, and not the logits, keep their gradients.
    Each alpha step takes one more pass for each choice, and one without ablation, all without
    gradients and with the batch's statistics, which they do not move.

    Args:
        weight: w_abl; 0 is `FirstOrder`, and takes no pass more.
    """

    def __init__(self, weight: Share):
        self.weight = weight

    def alpha_gradients(
        self, strategy: "Strategy", net: nn.Module, train: "Batch", val: "Batch"
    ) -> Tensor:
        if self.weight:
            scales = self.scales(contributions(strategy, net, val))
            net = partial(with_scaled_gradients, net, scales)  # type: ignore[assignment]
        return super().alpha_gradients(strategy, net, train, val)

    def scales(self, contributed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Choice -> factor of its gradient, 0-dim, in [1 - weight, 1 + weight]."""
        values = torch.stack(list(contributed.values()))
        mean = values.mean()
        relative = ((values - mean) / (mean.abs() + TINY)).clamp(-1, 1)
        return dict(zip(contributed, 1 + self.weight * relative, strict=True))

    def constants(self) -> Hashable:
        return ()


@torch.no_grad()
def contributions(strategy: "Strategy", net: "Logits", batch: "Batch") -> dict[str, Tensor]:
    """Choice -> M_c, 0-dim. Gates are drawn with torch's generator."""
    mixture = strategy.mixture()

    def loss(gates: Mapping[str, Tensor]) -> Tensor:
        groups = {n: g._replace(gates=gates.get(n, g.gates)) for n, g in mixture.groups.items()}
        logits = in_parts(
            lambda x: net(x, Mixture(groups)), batch[0], strategy.micro_batches, strategy.net
        )
        return F.cross_entropy(logits, batch[1])

    whole = loss({})
    found = {}
    for name, alive in strategy.alive.items():
        drawn = torch.where(alive, torch.rand_like(alive, dtype=whole.dtype), 0.0)
        found[name] = loss({name: drawn}) - whole
    return found


def with_scaled_gradients(
    net: "Logits", scales: Mapping[str, Tensor], x: Tensor, mixture: Mixture
) -> Tensor:
    """The logits (B, classes) of `net`; gradients of gates and factors are scaled by choice."""

    def scaled(value: Tensor, scale: Tensor) -> Tensor:
        fixed = value.detach()
        return fixed + scale * (value - fixed)

    groups = {}
    for name, part in mixture.groups.items():
        factors = None if part.factors is None else scaled(part.factors, scales[name])
        gates = scaled(part.gates, scales[name])
        groups[name] = GroupMixture(gates, factors, part.active, part.keep)
    return net(x, Mixture(groups))
