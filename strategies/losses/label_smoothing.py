"""Label smoothing as a loss term: a control for teachers, which also smooth labels."""

from collections.abc import Hashable
from typing import TYPE_CHECKING

from torch import Tensor

from search_spaces.settings import NotNegative
from strategies.contracts import LossTerm

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits
    from supernets.mixture import Mixture


class LabelSmoothing(LossTerm):
    """weight * CE(uniform, p), mean over the batch, on training images.

    Together with the cross-entropy, the gradient is 1 + weight times that of labels smoothed by
    weight / (1 + weight). Source: Szegedy et al. 2016, arXiv:1512.00567, section 7.

    Raises:
        ValueError: a negative weight.
    """

    roles = ("train",)
    averages = True

    def __init__(self, *, weight: NotNegative):
        self.weight = weight

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim; logits (B, classes)."""
        return -self.weight * logits.log_softmax(1).mean()

    def constants(self) -> Hashable:
        return ()
