"""The candidates of all families in plain torch, and the blocks they share.

A candidate is a constructor `op(c_in, c_out, stride, *, affine, search)` of a module that maps
(B, C, H, W) to (B, C', ceil(H/s), ceil(W/s)). `search` is true in a supernet.
"""

from collections.abc import Sequence

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


# Of several families


def zero(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    """No connection."""
    return Zero(c_in, c_out, stride)


class SepConv(nn.Module):
    """Depthwise-separable convolution applied twice; only the first has the stride."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, kernel_size: int
    ):
        super().__init__()
        self.first = depthwise_separable(c_in, c_in, stride, affine=affine, kernel_size=kernel_size)
        self.second = depthwise_separable(c_in, c_out, 1, affine=affine, kernel_size=kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


# DARTS: Liu et al. 2019, arXiv:1806.09055, section 3.1; shapes of the public code


def skip_connect(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    """Identity; a factorised reduction where the shape changes."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    return FactorizedReduce(c_in, c_out, affine=affine)


class Pool(nn.Sequential):
    """3x3 pooling; in the supernet a batch norm follows, so that no candidate wins by its scale."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, kind: str
    ):
        pools = {
            "max": nn.MaxPool2d(3, stride, padding=1),
            "avg": nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
        }
        super().__init__(pools[kind], *([nn.BatchNorm2d(c_out, affine=False)] if search else []))


def dil_conv(
    c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, kernel_size: int
) -> nn.Module:
    """Depthwise-separable convolution of dilation 2, applied once."""
    return depthwise_separable(
        c_in, c_out, stride, affine=affine, kernel_size=kernel_size, dilation=2
    )


# RobustDARTS: Zela et al. 2020, arXiv:1909.09656, section 3


class Noise(nn.Module):
    """Gaussian noise, iid N(0, 1), of the shape that the edge would give; ignores its input.

    Every pass draws anew, from torch's generator. Evaluation draws, too, as in the public code, so
    the accuracy of a network with noise depends on the seed.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool):
        super().__init__()
        self.c_out, self.stride = c_out, stride

    def forward(self, x: Tensor) -> Tensor:
        h, w = (-(-side // self.stride) for side in x.shape[2:])
        return self.drawn(x, (x.size(0), self.c_out, h, w))

    def drawn(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Noise of this shape, with the type and device of x."""
        return torch.randn(shape, dtype=x.dtype, device=x.device)


# sharpDARTS: Hundt et al. 2019, arXiv:1903.09900; shapes of the public code


class SharpSepConv(nn.Module):
    """Two depthwise-separable convolutions; only the first has the stride and the dilation.

    Thus a dilated block has as many layers and weights as an undilated one. Between the two there
    are `c_mid` channels, or c_out if that is None.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        affine: bool,
        search: bool,
        kernel_size: int,
        dilation: int = 1,
        c_mid: int | None = None,
    ):
        super().__init__()
        c_mid = c_mid or c_out
        self.first = depthwise_separable(
            c_in, c_mid, stride, affine=affine, kernel_size=kernel_size, dilation=dilation
        )
        self.second = depthwise_separable(c_mid, c_out, 1, affine=affine, kernel_size=kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def flood_conv(
    c_in: int,
    c_out: int,
    stride: int,
    *,
    affine: bool,
    search: bool,
    kernel_size: int,
    dilation: int = 1,
) -> SharpSepConv:
    """A `SharpSepConv` with 4 * c_out channels between its two convolutions."""
    sizes = {"kernel_size": kernel_size, "dilation": dilation, "c_mid": 4 * c_out}
    return SharpSepConv(c_in, c_out, stride, affine=affine, search=search, **sizes)


class ResizablePool(nn.Sequential):
    """3x3 pooling; where the channels change, a 1x1 convolution and a batch norm follow.

    Averages count the padding as zeros, unlike those of `Pool`. In the supernet a batch norm
    follows in any case.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, kind: str
    ):
        pools = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
        layers: list[nn.Module] = [pools[kind](3, stride, padding=1)]
        if c_in != c_out:
            layers += [nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out, affine=affine)]
        elif search:
            layers.append(nn.BatchNorm2d(c_out, affine=False))
        super().__init__(*layers)


# GOLD-NAS: Bi et al. 2020, arXiv:2007.03331, public code. No batch norm inside a cell has scale and
# shift, nor in final networks: `affine` is ignored.


class Skip(nn.Identity):
    """An identity, batch-normalised so that its scale says nothing. Drop-path leaves it alone."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def normalised_skip(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    """A normalised identity; a factorised reduction where the shape changes."""
    if stride == 1 and c_in == c_out:
        return Skip(c_in)
    return FactorizedReduce(c_in, c_out, affine=False)


def unscaled_sep_conv(
    c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, kernel_size: int
) -> nn.Module:
    """Depthwise-separable convolution applied twice, without scale and shift."""
    return SepConv(c_in, c_out, stride, affine=False, search=search, kernel_size=kernel_size)


# MobileNetV2: Sandler et al. 2018, arXiv:1801.04381


class MBConv(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution with the stride, 1x1 projection.

    A batch norm follows each, and a ReLU6 each of the first two; the input is added where the shape
    stays. With an expansion of 1 there is no first convolution. Source: section 3.3 and table 1.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        affine: bool,
        search: bool,
        kernel_size: int,
        expansion: int,
    ):
        super().__init__()
        hidden, padding = expansion * c_in, kernel_size // 2
        expand = [
            nn.Conv2d(c_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden, affine=affine),
            nn.ReLU6(),
        ]
        self.layers = nn.Sequential(
            *(expand if expansion > 1 else []),
            nn.Conv2d(hidden, hidden, kernel_size, stride, padding, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden, affine=affine),
            nn.ReLU6(),
            nn.Conv2d(hidden, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


# NAS-Bench-201: Dong & Yang 2020, arXiv:2001.00326, section 2; shapes of the public code, where a
# convolution has a bias exactly when the batch norm behind it has no affine parameters


def projecting_skip(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    """Identity; at stride 2 a factorised reduction; 1x1 convolution where only channels change."""
    if stride == 2:
        return FactorizedReduce(c_in, c_out, affine=affine, bias=not affine)
    if c_in == c_out:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 1, bias=not affine), nn.BatchNorm2d(c_out, affine=affine)
    )


def nor_conv(
    c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, kernel_size: int
) -> nn.Module:
    """ReLU, convolution, batch norm."""
    return ReLUConvBN(c_in, c_out, stride, affine=affine, kernel_size=kernel_size, bias=not affine)


class AvgPool(nn.Module):
    """3x3 average pooling; a 1x1 ReLU-Conv-BN before it where the channels change."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool):
        super().__init__()
        self.project = (
            nn.Identity()
            if c_in == c_out
            else ReLUConvBN(c_in, c_out, 1, affine=affine, bias=not affine)
        )
        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.project(x))
