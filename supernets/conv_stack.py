"""A stack of convolutions of any widths and kernels in plain torch, for export, too.

Source: Sukthanker et al. 2024, arXiv:2312.10440, public code (conv_macro).
"""

from collections.abc import Sequence
from typing import TypedDict

import torch.nn.functional as F
from torch import Tensor, nn


class ConvLayout(TypedDict):
    """Numbers of input and output channels, the kernel, whether a batch norm follows."""

    channels: tuple[int, int]
    kernel: int
    norm: bool


class Layout(TypedDict):
    """A network: four convolutions, a fixed one with its padding, whose maps are `side` (H, W), and
    a classifier with these hidden layers."""

    convs: Sequence[ConvLayout]
    last: ConvLayout
    padding: int
    side: tuple[int, int]
    hidden: Sequence[int]
    dropout: float
    classes: int


def classifier(features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Maps (B, C, H, W) of so many features -> logits (B, classes)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


def norm_of(conv: ConvLayout) -> nn.Module:
    return nn.BatchNorm2d(conv["channels"][1]) if conv["norm"] else nn.Identity()


def start(net: nn.Module) -> None:
    """Draws weights as He et al. 2015, arXiv:1502.01852, eq. 10; biases are 0. With torch's own
    rule a stack without norms hardly starts to learn."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ConvStack(nn.Module):
    """Images (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(*conv["channels"], conv["kernel"], padding=conv["kernel"] // 2)
            for conv in layout["convs"]
        )
        self.norms = nn.ModuleList(map(norm_of, layout["convs"]))
        last, (H, W) = layout["last"], layout["side"]
        self.last = nn.Conv2d(*last["channels"], last["kernel"], padding=layout["padding"])
        self.last_norm = norm_of(last)
        self.dropout = nn.Dropout2d(layout["dropout"])
        self.head = classifier(last["channels"][1] * H * W, layout["hidden"], layout["classes"])
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = self.between(i, F.relu(norm(conv(x))))
        return self.head(self.dropout(self.last_norm(self.last(x))))

    def between(self, i: int, x: Tensor) -> Tensor:
        """What follows the activation of a convolution: pools behind the second and the third,
        dropout behind the third."""
        if i == 2:
            x = self.dropout(x)
        return F.max_pool2d(x, 2) if i in (1, 2) else x
