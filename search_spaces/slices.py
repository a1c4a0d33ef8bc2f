"""Networks of several widths in one: prefixes of channels, in plain torch.

Source: Dong & Yang 2019, arXiv:1905.09717, section 3.1, and its public code.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def resampled(x: Tensor, channels: int) -> Tensor:
    """Channel-wise interpolation: x (B, C, H, W) -> (B, channels, H, W).

    Channel t is the mean of the channels floor(t C / C') to ceil((t + 1) C / C') - 1, for more
    channels or fewer.
    """
    if x.size(1) == channels:
        return x
    pixels = x.flatten(2)
    return F.adaptive_avg_pool2d(pixels, (channels, pixels.size(2))).unflatten(2, x.shape[2:])


def padded(x: Tensor, channels: int) -> Tensor:
    """x (B, C, H, W) with zeros up to this number of channels, at least C."""
    missing = channels - x.size(1)
    return F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y (B, C, H, W) of different widths: the wider one's last channels stay as they are."""
    widest = max(x.size(1), y.size(1))
    return padded(x, widest) + padded(y, widest)


class ChannelSlice(nn.Module):
    """The first `width` channels, normalised, and resampled to as many channels as x has.

    Raises ValueError if there are fewer channels.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, width: int
    ):
        super().__init__()
        if width > c_in:
            raise ValueError(
                f"a width of {width} needs as many channels, found {c_in}; set "
                "strategy/mixed_op=full"
            )
        self.width = width
        self.norm = nn.BatchNorm2d(width, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return resampled(self.norm(x[:, : self.width]), x.size(1))
