"""Accuracy and latency, weighed by the preference that was drawn. MODNAS, arXiv:2402.18213."""

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from strategies.contracts import LossTerm
from strategies.preference.devices import DevicePreference

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture
    from supernets.network import Network


class Preferred(LossTerm):
    """Makes the loss on val images r_1 CE + r_2 ln(classes) L: adds what it differs by from CE.

    r is the preference that was drawn, L the expected latency on the drawn device, from 0 for the
    fastest architecture to 1 for the slowest, or above where rows compete, as all of them run.
    ln(classes), the cross-entropy of guessing, brings both to one scale [ours].

    Raises:
        ValueError: the strategy draws no preferences.
    """

    roles = ("val",)
    averages = True

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        if not isinstance(strategy.preference, DevicePreference):
            raise ValueError("needs strategy/preference=devices; set it, or leave this loss out")
        self.preference = strategy.preference

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim."""
        error, latency = self.preference.drawn
        scaled = math.log(logits.size(1)) * self.preference.latency(mixture)
        return (error - 1) * F.cross_entropy(logits, batch[1]) + latency * scaled

    def constants(self) -> Hashable:
        return ()
