"""A residual network of any widths and depths in plain torch, for export, too.

Sources: He et al. 2016, arXiv:1512.03385, section 4.2; widths that differ within a stage: Dong &
Yang 2019, arXiv:1905.09717, and its public code.
"""

from collections.abc import Sequence
from typing import TypedDict

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.slices import added
from supernets.skeleton import pool_linear


class BlockLayout(TypedDict):
    """Widths of the two convolutions, and whether the block halves the resolution."""

    widths: tuple[int, int]
    strided: bool


class Layout(TypedDict):
    """A network: its first convolution, blocks, linear layer."""

    image_channels: int
    stem: int
    blocks: Sequence[BlockLayout]
    classes: int


def conv_norm(c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel_size, stride, padding, bias=False), nn.BatchNorm2d(c_out)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which projects where the resolution is halved."""

    def __init__(self, c_in: int, widths: tuple[int, int], *, strided: bool):
        super().__init__()
        a, b = widths
        self.channels = b if strided else max(c_in, b)
        self.first = conv_norm(c_in, a, 3, 2 if strided else 1)
        self.second = conv_norm(a, b, 3)
        self.shortcut: nn.Module = nn.Identity()
        if strided:
            self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), conv_norm(c_in, b, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(added(self.shortcut(x), self.second(F.relu(self.first(x)))))


class ResNet(nn.Module):
    """Images (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, layout: Layout):
        super().__init__()
        channels = layout["stem"]
        self.stem = conv_norm(layout["image_channels"], channels, 3)
        self.blocks = nn.ModuleList()
        for block in layout["blocks"]:
            made = BasicBlock(channels, block["widths"], strided=block["strided"])
            self.blocks.append(made)
            channels = made.channels
        self.head = pool_linear(channels, layout["classes"])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x)
