"""Drop-path and Cutout in the supernet, both more often from epoch to epoch.

Sources: Zela et al. 2020, arXiv:1909.09656 (R-DARTS(DP)); Larsson et al. 2017, arXiv:1605.07648;
DeVries & Taylor 2017, arXiv:1708.04552.
"""

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from search_spaces.settings import Share
from strategies.contracts import Regularisation
from strategies.regularisation.cutout import cutout
from strategies.update.second_order import SecondOrder

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network


class DropPath(Regularisation):
    """Drops the outputs of mixed ops, and squares of images, in alpha steps and weight steps.

    In epoch e of E, an edge's output is dropped for an image with probability `most` * e / (E - 1),
    and the rest is divided by the probability to be kept. An image gets Cutout with probability
    e / (E - 1). Measurements see whole networks and images. Deviation from the public code: there
    `most=0` turns Cutout off, too.

    Args:
        most: the probability of drop-path in the last epoch.
        cutout: side of the zeroed square, as a share of the image's shorter side; 0 is off.

    Raises:
        ValueError: a share outside [0, 1); finite differences in the update.
    """

    def __init__(self, *, most: Share, cutout: Share):
        self.most, self.cutout = most, cutout

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.net, self.share = net, 0.0
        if self.most > 0 and not any(net.places()):
            raise ValueError(
                f"most: expected 0, as space {strategy.space.name} has no edges to drop, found "
                f"{self.most}; set strategy/regularisation=none"
            )
        update = strategy.update
        if isinstance(update, SecondOrder) and update.hessian == "finite_difference":
            raise ValueError(
                "drops other edges in every pass, and update.hessian=finite_difference compares "
                "passes that are equal; set update.hessian to exact"
            )

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.share = min(1.0, epoch / max(1, math.ceil(epochs) - 1))
        self.net.set_drop_path(self.most * self.share)

    def images(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        side = round(self.cutout * min(H, W))
        if side == 0 or self.share == 0:
            return x
        centres = [torch.randint(end, (B,), device=x.device) for end in (H, W)]
        chosen = torch.rand(B, 1, 1, 1, device=x.device) < self.share
        return torch.where(chosen, cutout(x, torch.stack(centres, 1), side), x)

    def constants(self) -> Hashable:
        """The probability, or whether there is one, if a pass reads it from a tensor."""
        probability = self.most * self.share
        return probability if self.net.drop_probability is None else probability > 0
