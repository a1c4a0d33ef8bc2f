"""A hand-designed network of the same size as the found one, for comparison.

ResNet-18 (He et al. 2016, arXiv:1512.03385) and MobileNetV3-Small (Howard et al. 2019,
arXiv:1905.02244) of torchvision, untrained.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.settings import checked
from search_spaces.space import Space
from search_spaces.stems import STEMS
from supernets.costs import macs, parameters
from supernets.layout import channels_first
from supernets.network import final_network

STEPS = 512  # widths are multiples of 1 / STEPS
WIDEST = 16
GEOMETRY = ("kernel_size", "stride", "padding", "dilation")  # of a convolution, as it was


@checked
@dataclass(frozen=True)
class Baseline:
    """Which network, and which measure of size is matched to the found one.

    Raises:
        ValueError: an unknown name.
    """

    network: Literal["resnet18", "mobilenet_v3_small"]
    match: Literal["parameters", "macs"]

    def beside(self, space: Space, architecture: Architecture) -> tuple["HandMade", dict[str, Any]]:
        """The network matched to an architecture, and its record. space: the final one."""
        with torch.device("meta"):
            found = final_network(space, architecture)
        target = SIZES[self.match](found)
        net = self.sized(space, target)
        told = {
            "match": self.match,
            "ratio": round(SIZES[self.match](net) / target, 4),
            "width": net.width,
            "parameters": SIZES["parameters"](net),
            "macs": SIZES["macs"](net),
        }
        return net, told

    def sized(self, space: Space, target: int) -> "HandMade":
        """The network on the default device, at the width whose size is closest to `target`.

        space: that of the found network, which sets input shape, classes and kind of stem.
        """
        size = SIZES[self.match]

        def of(step: int) -> int:
            with torch.device("meta"):
                return size(HandMade(self.network, space, step / STEPS))

        step = 1 + bisect_left(range(1, WIDEST * STEPS), target, key=of)
        near = min(
            {step, max(1, step - 1)}, key=lambda step: (abs(math.log(of(step) / target)), step)
        )
        return HandMade(self.network, space, near / STEPS)


class HandMade(nn.Module):
    """A torchvision network with all widths scaled, with the interface of a final network.

    If the found network's stem keeps full resolution, so does this one's. There is no auxiliary
    head and no drop-path.

    forward: (B, C, H, W) -> logits (B, classes).
    """

    auxiliary = None

    def __init__(self, network: str, space: Space, width: float):
        from torchvision.models import get_model

        super().__init__()
        self.space, self.width = space, width
        net = get_model(network, weights=None, num_classes=space.classes)
        if STEMS[space.stem].reduction == 1:
            NETWORKS[network](net)
        self.net = scaled(net, width, space.input_shape[0], space.classes)

    def forward(self, x: Tensor, mixture: None = None) -> Tensor:
        return self.net(channels_first(x))

    def set_drop_path(self, probability: float) -> None:
        """Does nothing: there is no drop-path."""


def scaled(net: nn.Module, width: float, channels: int, classes: int) -> nn.Module:
    """The same network with `width` times as many channels and features between input and classes.

    channels: of the images. Layers are created anew: convolutions with torchvision's initialisation
    for these networks, linear layers with torch's.
    """

    def times(count: int) -> int:
        return max(1, round(count * width))

    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    layers = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, kinds)]
    first, last = layers[0][0], layers[-1][0]
    for name, old in layers:
        new: nn.Module
        if isinstance(old, nn.BatchNorm2d):
            new = nn.BatchNorm2d(times(old.num_features), old.eps, old.momentum)
        elif isinstance(old, nn.Linear):
            features = classes if name == last else times(old.out_features)
            new = nn.Linear(times(old.in_features), features)
        else:
            assert isinstance(old, nn.Conv2d)
            kept: dict[str, Any] = {key: getattr(old, key) for key in GEOMETRY}
            new = nn.Conv2d(
                channels if name == first else times(old.in_channels),
                times(old.out_channels),
                **kept,
                groups=1 if old.groups == 1 else times(old.groups),
                bias=old.bias is not None,
            )
            nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
            if new.bias is not None:
                nn.init.zeros_(new.bias)
        net.set_submodule(name, new)
    return net


def _resnet_at_full_resolution(net: Any) -> None:
    """Replaces the 7x7 convolution of stride 2 and the pool by a 3x3 convolution of stride 1."""
    net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()


def _mobilenet_at_full_resolution(net: Any) -> None:
    """Sets the first two of the five strides to 1."""
    net.features[0][0].stride = (1, 1)
    net.features[1].block[0][0].stride = (1, 1)


# name in torchvision -> what makes its stem keep the resolution of small images
NETWORKS: dict[str, Callable[[Any], None]] = {
    "resnet18": _resnet_at_full_resolution,
    "mobilenet_v3_small": _mobilenet_at_full_resolution,
}
SIZES: dict[str, Callable[[Any], int]] = {"parameters": parameters, "macs": macs}
