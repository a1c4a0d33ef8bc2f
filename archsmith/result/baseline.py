"""Networks to train beside the found one: hand-designed at its size, or drawn from its space.

ResNet-18 (He et al. 2016, arXiv:1512.03385) and MobileNetV3-Small (Howard et al. 2019,
arXiv:1905.02244) of torchvision, untrained; random architectures (Li & Talwalkar 2019,
arXiv:1902.07638; Yang et al. 2020, arXiv:1912.12522).
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.settings import Count, checked
from search_spaces.space import Space
from search_spaces.stems import STEMS
from supernets.costs import macs, parameters
from supernets.layout import channels_first
from supernets.network import final_network, started

STEPS = 512  # widths are multiples of 1 / STEPS
WIDEST = 16
GEOMETRY = ("kernel_size", "stride", "padding", "dilation")  # of a convolution, as it was
Draw = Callable[[], Architecture]


class Rival(NamedTuple):
    """A network to train beside the found one.

    told: its size, and what else `results.json` says of it. identity: what it depends on, besides
    the recipe.
    """

    name: str
    make: Callable[[], nn.Module]
    told: dict[str, Any]
    identity: dict[str, Any]


class Baseline(ABC):
    """The choice of networks to compare the found one with."""

    @abstractmethod
    def rivals(
        self, architecture: Architecture, final: Space, draw: Draw, *, auxiliary: bool
    ) -> Iterator[Rival]:
        """The networks beside an architecture.

        final: its space, at the size of the final network. draw: the next random architecture of
        the space. auxiliary: whether the final network is trained with an auxiliary head.
        """

    def check(self, space: Space) -> None:  # noqa: B027 - most need nothing
        """Raises DataError or ValueError, before a run starts, if these networks cannot be made.

        space: of the final network.
        """


@dataclass(frozen=True)
class Several(Baseline):
    """The networks of several baselines, one after the other."""

    baselines: Sequence[Baseline]

    def check(self, space: Space) -> None:
        for one in self.baselines:
            one.check(space)

    def rivals(
        self, architecture: Architecture, final: Space, draw: Draw, *, auxiliary: bool
    ) -> Iterator[Rival]:
        for one in self.baselines:
            yield from one.rivals(architecture, final, draw, auxiliary=auxiliary)


@checked
@dataclass(frozen=True)
class RandomArchitectures(Baseline):
    """Architectures drawn from the space.

    Args:
        count: how many of them.
    """

    count: Count

    def rivals(
        self, architecture: Architecture, final: Space, draw: Draw, *, auxiliary: bool
    ) -> Iterator[Rival]:
        for i in range(self.count):
            one = draw()
            with torch.device("meta"):
                net = final_network(final, one)
            told = {"drawn": one.choices, **{name: size(net) for name, size in SIZES.items()}}
            yield Rival(
                f"random_{i}",
                partial(started, final, one, auxiliary=auxiliary),
                told,
                {"drawn": one.identity},
            )


@checked
@dataclass(frozen=True)
class HandDesigned(Baseline):
    """Which network, and which measure of size is matched to the found one; `full` keeps the
    published widths, and the network is called `<name>_full`.

    Raises:
        ValueError: an unknown name.
    """

    network: Literal["resnet18", "mobilenet_v3_small"]
    match: Literal["parameters", "macs", "full"]

    def check(self, space: Space) -> None:
        if space.reads_text:
            raise ValueError(f"network: {self.network} reads images, not text; set baseline=random")

    def rivals(
        self, architecture: Architecture, final: Space, draw: Draw, *, auxiliary: bool
    ) -> Iterator[Rival]:
        told = self.beside(final, architecture)
        make = partial(HandMade, self.network, final, told["width"])
        identity = asdict(self) | {"architecture": architecture.identity}
        name = f"{self.network}_full" if self.match == "full" else self.network
        yield Rival(name, make, told, identity)

    def beside(self, space: Space, architecture: Architecture) -> dict[str, Any]:
        """The width matched to an architecture, the sizes there, and their `ratio` to those of the
        found network (of parameters, at full size). space: the final one."""
        compared = "parameters" if self.match == "full" else self.match
        with torch.device("meta"):
            target = SIZES[compared](final_network(space, architecture))
            full = self.match == "full"
            net = HandMade(self.network, space, 1.0) if full else self.sized(space, target)
            sizes = {name: size(net) for name, size in SIZES.items()}
        ratio = round(sizes[compared] / target, 4)
        return {"match": self.match, "ratio": ratio, "width": net.width, **sizes}

    def sized(self, space: Space, target: int) -> "HandMade":
        """The network on the default device, at the width whose size, as matched, is closest to
        `target`.

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
