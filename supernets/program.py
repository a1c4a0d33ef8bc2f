"""The final network of a program in plain torch: an exported `model.py` is a copy of this text.

A network is built from data: a tree of layers and of what puts them together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn


class ProgramLayout(TypedDict):
    """A network: stem, modules, head. A node of the tree has a `kind`, and either `parts`, nodes
    (`sequence`, `residual`, `concat`), or the settings of a layer."""

    image_channels: int
    stem_channels: int
    modules: Mapping[str, Any]
    classes: int


class Map(NamedTuple):
    """What is known of a feature map: channels, and the image's side / its side."""

    channels: int
    stride: int = 1


class Residual(nn.Module):
    """x + module(x); where the shape changes, x passes a 1x1 convolution (our own choice)."""

    def __init__(self, module: nn.Module, before: Map, after: Map):
        super().__init__()
        stride = after.stride // before.stride
        self.module = module
        self.shortcut = (
            nn.Identity()
            if before == after
            else nn.Conv2d(before.channels, after.channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.module(x)


class Concat(nn.Module):
    """The outputs of several modules on one input, (B, sum of C, H, W)."""

    def __init__(self, modules: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], 1)


def conv(x: Map, *, filters: int, kernel: int) -> tuple[nn.Module, Map]:
    """A convolution that keeps the resolution. Raises ValueError for an even kernel, which does
    not."""
    if kernel % 2 == 0:
        raise ValueError(
            f"conv: expected an odd kernel, which keeps the resolution, found {kernel}; set "
            f"{kernel + 1}"
        )
    made = nn.Conv2d(x.channels, filters, kernel, padding=kernel // 2)
    return made, x._replace(channels=filters)


def batch_norm(x: Map) -> tuple[nn.Module, Map]:
    """Batch norm with scale and shift."""
    return nn.BatchNorm2d(x.channels), x


def relu(x: Map) -> tuple[nn.Module, Map]:
    """ReLU."""
    return nn.ReLU(), x


def dropout(x: Map, *, rate: float) -> tuple[nn.Module, Map]:
    """Dropout of single values with probability `rate`."""
    return nn.Dropout(rate), x


def max_pool(x: Map, *, size: int) -> tuple[nn.Module, Map]:
    """Divides the resolution by `size`, rounding up."""
    return nn.MaxPool2d(size, ceil_mode=True), x._replace(stride=x.stride * size)


def average_pool(x: Map, *, size: int) -> tuple[nn.Module, Map]:
    """As `max_pool`."""
    return nn.AvgPool2d(size, ceil_mode=True), x._replace(stride=x.stride * size)


LAYERS: dict[str, Callable[..., tuple[nn.Module, Map]]] = {
    "conv": conv,
    "batch_norm": batch_norm,
    "relu": relu,
    "dropout": dropout,
    "max_pool": max_pool,
    "average_pool": average_pool,
}


def sequence(parts: Sequence[Mapping[str, Any]], x: Map) -> tuple[nn.Module, Map]:
    """Modules one after the other."""
    made = nn.Sequential()
    for part in parts:
        module, x = build_module(part, x)
        made.append(module)
    return made, x


def residual(parts: Sequence[Mapping[str, Any]], x: Map) -> tuple[nn.Module, Map]:
    """One module, and its input added to its output."""
    module, y = build_module(parts[0], x)
    return Residual(module, x, y), y


def concat(parts: Sequence[Mapping[str, Any]], x: Map) -> tuple[nn.Module, Map]:
    """Modules on one input. Raises ValueError if they change the resolution differently."""
    modules, maps = zip(*(build_module(part, x) for part in parts), strict=True)
    strides = sorted({y.stride for y in maps})
    if len(strides) > 1:
        raise ValueError(
            f"concat: expected outputs of one resolution, found strides {strides}; give all parts "
            "the same poolings"
        )
    return Concat(modules), Map(sum(y.channels for y in maps), strides[0])


COMPOUNDS = {"sequence": sequence, "residual": residual, "concat": concat}


def build_module(node: Mapping[str, Any], x: Map) -> tuple[nn.Module, Map]:
    """The module of a node on a feature map x, and what is known of its output.

    Raises ValueError for an unknown kind, and as `conv` and `concat`.
    """
    settings = {name: value for name, value in node.items() if name != "kind"}
    if node["kind"] in COMPOUNDS:
        return COMPOUNDS[node["kind"]](settings["parts"], x)
    if node["kind"] not in LAYERS:
        known = ", ".join([*LAYERS, *COMPOUNDS])
        raise ValueError(f"layer: unknown '{node['kind']}'; known: {known}")
    return LAYERS[node["kind"]](x, **settings)


class FinalProgram(nn.Module):
    """Stem, modules, head: images (B, C, H, W) -> logits (B, classes).

    Args:
        stem: (image channels, channels) -> its two parts, one after the other.
        head: (channels, classes) -> the last layers.
    """

    def __init__(
        self,
        layout: ProgramLayout,
        *,
        stem: Callable[[int, int], tuple[nn.Module, nn.Module]],
        head: Callable[[int, int], nn.Module],
    ):
        super().__init__()
        self.stem = nn.Sequential(*stem(layout["image_channels"], layout["stem_channels"]))
        self.body, last = build_module(layout["modules"], Map(layout["stem_channels"]))
        self.head = head(last.channels, layout["classes"])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))
