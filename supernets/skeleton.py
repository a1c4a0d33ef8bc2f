"""The fixed parts around the operations, in plain torch: cell inputs, residual block, heads.

Sources: Liu et al. 2019, arXiv:1806.09055; Dong & Yang 2020, arXiv:2001.00326; their public code.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops import FactorizedReduce, ReLUConvBN


def fit_input(c_in: int, c_out: int, stride: int, *, affine: bool) -> nn.Module:
    """Brings an input of a cell to its channels, and with stride 2 to half the resolution."""
    if stride == 2:
        return FactorizedReduce(c_in, c_out, affine=affine)
    return ReLUConvBN(c_in, c_out, 1, affine=affine)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, beside average pooling and a 1x1 convolution."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv_a = ReLUConvBN(c_in, c_out, 2, affine=True, kernel_size=3)
        self.conv_b = ReLUConvBN(c_out, c_out, 1, affine=True, kernel_size=3)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(c_in, c_out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv_b(self.conv_a(x))


def pool_linear(channels: int, classes: int) -> nn.Sequential:
    """Global average pooling and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def bn_relu_pool_linear(channels: int, classes: int) -> nn.Sequential:
    """Batch norm and ReLU before global average pooling and a linear layer."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), *pool_linear(channels, classes))


def expand_pool_linear(channels: int, classes: int) -> nn.Sequential:
    """1x1 convolution to four times the channels, batch norm and ReLU6 before global average
    pooling and a linear layer. Source: Sandler et al. 2018, arXiv:1801.04381, table 2: 320 to 1280.
    """
    wide = 4 * channels
    before = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
    return nn.Sequential(*before, *pool_linear(wide, classes))


def max_pool_hidden(channels: int, classes: int) -> nn.Sequential:
    """2x2 maximum pooling to maps of 3x3 (others are resampled), a hidden layer of as many units as
    channels, dropout 0.2. Source: Sukthanker et al. 2024, arXiv:2312.10440, public code."""
    return nn.Sequential(
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(9 * channels, channels),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(channels, classes),
    )


HEADS: dict[str, Callable[[int, int], nn.Sequential]] = {
    "pool_linear": pool_linear,
    "bn_relu_pool_linear": bn_relu_pool_linear,
    "expand_pool_linear": expand_pool_linear,
    "max_pool_hidden": max_pool_hidden,
}


class AuxiliaryHead(nn.Module):
    """A second classifier at two thirds of the depth, used in training only.

    Pools to 2x2 with windows of 5 where the map is 6 to 8 wide, as the public code does for 8
    (CIFAR) and 7
    (ImageNet), else adaptively. `second_norm=False` leaves out the second batch norm, as the
    ImageNet code does.
    """

    def __init__(self, channels: int, classes: int, *, second_norm: bool):
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU()
        )
        norm = [nn.BatchNorm2d(768)] if second_norm else []
        self.features = nn.Sequential(
            nn.Conv2d(128, 768, 2, bias=False), *norm, nn.ReLU(), nn.Flatten()
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = F.relu(x)
        if 6 <= h <= 8 and 6 <= w <= 8:
            x = F.avg_pool2d(x, 5, stride=(h - 5, w - 5), count_include_pad=False)
        else:
            x = F.adaptive_avg_pool2d(x, 2)
        return self.classifier(self.features(self.reduce(x)))
