"""The layout of maps in memory that torch's convolutions get on a CPU: channels first.

On channels-last maps oneDNN's gradient of a strided 1x1 convolution writes outside its memory where
channels are few (docs/upstream/strided_1x1_convolution.md), so only the native kernels exchange
such maps, among themselves.
"""

import torch
from torch import Tensor


def channels_first(x: Tensor) -> Tensor:
    """On a CPU, x (B, C, H, W) with the strides of that order; elsewhere x.

    torch reads the layout off the strides, which may say either where C or H x W is 1: there they
    are written anew.
    """
    _, channel, _, column = x.stride()
    if x.device.type != "cpu" or channel > column:
        return x
    return x.flatten().view(x.shape)


def channels_last(*maps: Tensor) -> list[Tensor]:
    """The maps (B, C, H, W) with the channels of a pixel together; the same one is copied once."""
    laid = {id(x): x.contiguous(memory_format=torch.channels_last) for x in maps}
    return [laid[id(x)] for x in maps]


def by_rows(x: Tensor) -> bool:
    """Whether the pixels of a row of x (B, C, H, W) are together in memory, as channels first."""
    return x.stride(-1) == 1


def laid_as(x: Tensor, like: Tensor) -> Tensor:
    """x (B, C, H, W), on a GPU with its channels together where those of `like` are; on a CPU x."""
    if x.device.type == "cpu" or not _together(like) or _together(x):
        return x
    return x.contiguous(memory_format=torch.channels_last)


def _together(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)
