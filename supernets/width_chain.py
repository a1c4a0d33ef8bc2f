"""A chain of operations of any widths in plain torch, for export, too.

Source: Hundt et al. 2019, arXiv:1903.09900, public code.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from torch import Tensor, nn

from search_spaces.ops import SharpSepConv
from supernets.skeleton import pool_linear


class StepLayout(TypedDict):
    """An operation, and what it does to channels and resolution."""

    operation: str
    channels: tuple[int, int]
    stride: int


class Layout(TypedDict):
    """A network: its first convolution, operations, last block, linear layer."""

    image_channels: int
    steps: Sequence[StepLayout]
    head_channels: int
    classes: int


def conv_stem(c_in: int, channels: int) -> nn.Sequential:
    """3x3 convolution and batch norm."""
    return nn.Sequential(
        nn.Conv2d(c_in, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )


class WidthChain(nn.Module):
    """Images (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, layout: Layout, operations: Mapping[str, Callable[..., nn.Module]]):
        super().__init__()
        steps, final = layout["steps"], {"affine": True, "search": False}
        self.stem = conv_stem(layout["image_channels"], steps[0]["channels"][0])
        self.layers = nn.Sequential(
            *(operations[s["operation"]](*s["channels"], s["stride"], **final) for s in steps)
        )
        last, channels = steps[-1]["channels"][1], layout["head_channels"]
        self.end = SharpSepConv(last, channels, 1, kernel_size=3, **final)
        self.head = pool_linear(channels, layout["classes"])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.end(self.layers(self.stem(x))))
