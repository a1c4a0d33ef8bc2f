"""Schedules of a learning rate: functions of the epoch, without state.

All have the signature of `strategies.contracts.Schedule`.
"""

import math
from typing import Annotated

from search_spaces.settings import Range, Share, checked

Power = Annotated[float, Range(ge=1, le=1000)]


def constant(lr: float, min_lr: float, epoch: int, epochs: float) -> float:
    """`lr` in every epoch."""
    return lr


def cosine(lr: float, min_lr: float, epoch: int, epochs: float) -> float:
    """Half a cosine from `lr` at epoch 0 to `min_lr` after the last epoch."""
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def exponential(lr: float, min_lr: float, epoch: int, epochs: float) -> float:
    """A constant factor per epoch, from `lr` at epoch 0 to `min_lr` after the last epoch.

    Raises:
        ValueError: `min_lr` is not above 0, which no factor leads to.
    """
    if min_lr <= 0:
        raise ValueError(f"an exponential schedule needs a min_lr above 0, found {min_lr}")
    return lr * (min_lr / lr) ** (epoch / epochs) if lr else 0.0


def linear(lr: float, min_lr: float, epoch: int, epochs: float) -> float:
    """A line that would reach `min_lr` 5 epochs before the end, then a flatter one to the end.

    Source: PC-DARTS public code for ImageNet. With fewer than 10 epochs the flatter line takes half
    of them.
    """
    tail, left = min(5, epochs // 2), epochs - epoch
    height = left - tail if left > tail else left / tail
    return min_lr + (lr - min_lr) * height / (epochs - tail)


@checked
def cosine_power(
    lr: float,
    min_lr: float,
    epoch: int,
    epochs: float,
    *,
    power: Power,
    warmup: Share = 0.0,
) -> float:
    """Cosine power annealing: the first epoch has exactly `lr`, the last one exactly `min_lr`.

    Args:
        power: p from 1 to 1000; 1 is a cosine. A larger one decays faster and leaves a longer tail.
        warmup: share of the epochs, W, in which the rate rises linearly; epoch W has `lr`, and
            at least one epoch follows.

    Source: Hundt et al. 2019, sharpDARTS, arXiv:1903.09900, section 4; scaled to the epochs' own
    largest and smallest value as in the public code, which its warm-up comes from too.
    """
    number = math.ceil(epochs)
    first = max(0, min(round(warmup * number), number - 2))  # epochs that rise
    if first and epoch <= first:
        return min_lr + (lr - min_lr) * (epoch + 1) / (first + 1)

    def height(e: int) -> float:
        c = (1 + math.cos(math.pi * (e - first) / (number - first))) / 2
        return c if power == 1 else power ** (c + 1)

    heights = [height(e) for e in range(1, number + 1)]
    least, most = min(heights), max(heights)
    share = (heights[epoch] - least) / (most - least) if most > least else 1.0
    return min_lr + (lr - min_lr) * share
