"""What images pass before the first layer, in plain torch, and the properties of each stem.

A stem has two parts, whose outputs are the inputs of the first cell. Source: Liu et al. 2019,
arXiv:1806.09055, public code.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


def small_stem(c_in: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """One 3x3 convolution at full resolution; both inputs of the first cell are its output."""
    conv = nn.Sequential(
        nn.Conv2d(c_in, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )
    return conv, nn.Identity()


def imagenet_stem(c_in: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """Three 3x3 convolutions of stride 2: the first cell sees 1/4 and 1/8 of the resolution."""
    first = nn.Sequential(
        nn.Conv2d(c_in, channels // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    second = nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    return first, second


def mobile_stem(c_in: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """One 3x3 convolution of stride 2 with batch norm and ReLU6.

    Source: Sandler et al. 2018, arXiv:1801.04381, table 2.
    """
    conv = nn.Sequential(
        nn.Conv2d(c_in, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
    )
    return conv, nn.Identity()


def no_stem(c_in: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """The images themselves; `channels` are theirs."""
    return nn.Identity(), nn.Identity()


@dataclass(frozen=True)
class Stem:
    """A stem's constructor, and what others need to know of it."""

    build: Callable[[int, int], tuple[nn.Module, nn.Module]]  # (input channels, stem channels)
    multiplier: int  # stem channels / channels of the space, by default
    reduction: int  # of the resolution, by both parts
    second_stride: int  # of the second part
    side: int  # the shorter side of images that are small for it
    second_norm: bool  # whether the auxiliary head has two batch norms, as in the public code


STEMS = {
    "small": Stem(small_stem, 3, reduction=1, second_stride=1, side=32, second_norm=True),
    "imagenet": Stem(imagenet_stem, 1, reduction=8, second_stride=2, side=128, second_norm=False),
    "plain": Stem(small_stem, 1, reduction=1, second_stride=1, side=32, second_norm=True),
    "none": Stem(no_stem, 1, reduction=1, second_stride=1, side=32, second_norm=True),
    "mobile": Stem(mobile_stem, 1, reduction=2, second_stride=1, side=64, second_norm=True),
}
