"""Grouped convolutions in the torch operations that are fast.

torch's CPU library has vectorised kernels for depthwise convolutions, but none for the gradients of
dilated ones, nor for the weight gradient of filters larger than 3x3, which it computes several
times slower; small grouped 1x1 convolutions are faster as matrix products. On a GPU these are
expected to be, too (not measured). Equal to `F.conv2d` but for rounding
(tests/supernets/test_convolution.py), and differentiable twice.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernets.gpu import launches
from supernets.layout import by_rows

TILE = 3  # the largest filter whose weight gradient is vectorised
# Channels a group to which matrix products serve: faster at 4, 8 and 16 on one AVX-512 core, slower
# at 64; between was not measured.
WIDEST = 32
ON_A_GPU = range(4, 17)  # the same there, where cuDNN has no good kernels; not measured


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, conv: nn.Conv2d, groups: int) -> Tensor:
    """`conv` with other weights (C', C/groups, k, k) on x (B, C, H, W): (B, C', H', W')."""
    stride, padding, dilation = conv.stride, conv.padding, conv.dilation
    plain = bias is None and groups > 1
    if launches(x.device) and plain and weight.size(1) in ON_A_GPU and is_pointwise(conv):
        return pointwise(x, weight, groups) if by_rows(x) else by_pixels(x, weight, groups)
    if x.device.type == "cpu" and plain and not torch.is_autocast_enabled("cpu"):
        size, s, d = weight.size(-1), stride[0], dilation[0]
        square = all(len(set(n)) == 1 for n in (weight.shape[2:], stride, padding, dilation))
        if square and padding[0] == d * (size // 2) and size % 2:
            if weight.size(1) == 1 and weight.size(0) == groups and (d == 1 or s in (1, d)):
                return depthwise(x, weight, s, d)
            if size == s == 1 and weight.size(1) <= WIDEST:
                return pointwise(x, weight, groups)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0)


def pointwise(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """A 1x1 convolution in groups as one matrix product a group and image."""
    rows = weight.view(groups, -1, weight.size(1)).expand(x.size(0), -1, -1, -1).flatten(0, 1)
    y = torch.bmm(rows, x.reshape(rows.size(0), rows.size(2), -1))
    return y.view(x.size(0), -1, *x.shape[2:])


def by_pixels(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The same on channels-last maps, as one matrix product a group over all pixels."""
    (B, _, H, W), rows = x.shape, weight.view(groups, -1, weight.size(1))
    pixels = x.permute(0, 2, 3, 1).reshape(B * H * W, groups, -1).transpose(0, 1)
    y = torch.bmm(pixels, rows.transpose(1, 2)).transpose(0, 1)  # (pixels, groups, C'/groups)
    return y.reshape(B, H, W, -1).permute(0, 3, 1, 2)


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """A depthwise convolution with weights (C, 1, k, k), padded so that H' = ceil(H / stride).

    With dilation d a pixel sees only those whose coordinates leave the same remainders by d, so the
    d x d images of equal remainders are convolved without dilation.
    """
    if dilation == 1:
        return Depthwise.apply(x, weight, stride)
    if stride == dilation:
        return Depthwise.apply(x[:, :, ::stride, ::stride].contiguous(), weight, 1)
    d, (B, C, H, W) = dilation, x.shape
    x = F.pad(x, (0, -W % d, 0, -H % d)).unflatten(3, (-1, d)).unflatten(2, (-1, d))
    apart = x.permute(3, 5, 0, 1, 2, 4).reshape(d * d * B, C, *x.shape[2:5:2])
    y = Depthwise.apply(apart, weight, 1).view(d, d, B, C, *x.shape[2:5:2])
    return y.permute(2, 3, 4, 0, 5, 1).flatten(4, 5).flatten(2, 3)[:, :, :H, :W]


class Depthwise(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is put together from 3x3 tiles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.size(-1) // 2, 1, weight.size(0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,), (x, weight), s = grads, ctx.saved_tensors, ctx.stride
        to_x = to_weight = None
        pad = weight.size(-1) // 2
        if ctx.needs_input_grad[0]:
            to_x = gradients(grad, x, weight, s, pad, (True, False))[0]
        if ctx.needs_input_grad[1]:
            to_weight = weight_gradient(grad, x, weight, s)
        return to_x, to_weight, None


def gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, pad: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Of the input and of the weights, those that are wanted."""
    s, p, mask = [stride] * 2, [pad] * 2, [*wanted, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, s, p, [1, 1], False, [0, 0], weight.size(0), mask
    )[:2]


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """(C, 1, k, k): each tile from a shifted image."""
    size, pad = weight.size(-1), weight.size(-1) // 2
    if size <= TILE:
        return gradients(grad, x, weight, stride, pad, (False, True))[1]
    tile = weight.detach()[:, :, :TILE, :TILE].contiguous()
    starts = range(0, size, TILE)
    reach = [(n - 1) * stride + TILE for n in grad.shape[2:]]
    more = [max(0, starts[-1] + r - n - pad) for r, n in zip(reach, x.shape[2:], strict=True)]
    x = F.pad(x, (pad, more[1], pad, more[0]))
    rows = []
    for i in starts:
        shifted = (x[:, :, i : i + reach[0], j : j + reach[1]] for j in starts)
        tiles = [gradients(grad, part, tile, stride, 0, (False, True))[1] for part in shifted]
        rows.append(torch.cat(tiles, 3))
    return torch.cat(rows, 2)[:, :, :size, :size]
