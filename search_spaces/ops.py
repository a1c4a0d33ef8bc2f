"""Blocks shared by the families of candidates: (B, C, H, W) to (B, C', ceil(H/s), ceil(W/s))."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Zero(nn.Module):
    """No connection: zeros of the shape the edge would give."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.c_in, self.c_out, self.stride = c_in, c_out, stride

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, :, :: self.stride, :: self.stride] * 0
        return y if self.c_in == self.c_out else y[:, :1].expand(-1, self.c_out, -1, -1)


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution, batch norm."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        affine: bool,
        kernel_size: int = 1,
        bias: bool = False,
    ):
        padding = (kernel_size - 1) // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(c_in, c_out, kernel_size, stride, padding, bias=bias),
            nn.BatchNorm2d(c_out, affine=affine),
        )


def depthwise_separable(
    c_in: int, c_out: int, stride: int, *, affine: bool, kernel_size: int, dilation: int = 1
) -> nn.Sequential:
    """ReLU, depthwise convolution with the stride, pointwise convolution, batch norm."""
    padding = dilation * (kernel_size - 1) // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_in, kernel_size, stride, padding, dilation, groups=c_in, bias=False),
        nn.Conv2d(c_in, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


class FactorizedReduce(nn.Module):
    """Halves the resolution by two 1x1 convolutions of stride 2, the second shifted by one pixel.

    An odd side is padded with a zero right or below, so that both halves have ceil(H/2) rows.
    Source: Liu et al. 2019, arXiv:1806.09055, public code.
    """

    def __init__(self, c_in: int, c_out: int, *, affine: bool, bias: bool = False):
        super().__init__()
        self.relu = nn.ReLU()
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, half, 1, stride=2, bias=bias)
            for half in (c_out // 2, c_out - c_out // 2)
            if half
        )
        self.bn = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        shifted = F.pad(x, (0, x.size(3) % 2, 0, x.size(2) % 2))[:, :, 1:, 1:]
        views = (x, shifted)[-len(self.convs) :]
        return self.bn(
            torch.cat([conv(view) for conv, view in zip(self.convs, views, strict=True)], 1)
        )
