"""Images whose rows repeat, with or without a change of sign, after `lag` pixels.

Any `lag` neighbours of a row are independent coins in both classes, so a kernel tells the classes
apart if and only if it is wider than the lag.
"""

import torch
from torch import Tensor

from search_spaces.chains import Block, ChainSpace, of_blocks
from search_spaces.choice import Option
from search_spaces.mbconv import CANDIDATES

SIDE, CHANNELS = 12, 4
OPTIONS = ["skip_connect", "mbconv_3x3_e3", "mbconv_3x3_e6", "mbconv_5x5_e3", "mbconv_5x5_e6"]


def one_block(options: tuple[str, ...] = tuple(OPTIONS)) -> ChainSpace:
    """A chain of one block."""
    block = Block(0, 1, tuple(map(Option.of, options)), CHANNELS, CHANNELS, 1)
    return of_blocks(
        [block], name="planted", family=one_block, settings={}, operations=CANDIDATES,
        input_shape=(1, SIDE, SIDE), classes=2, stem="plain", head="expand_pool_linear",
    )  # fmt: skip


def lags(lag: int, source: torch.Generator, images: int = 32) -> tuple[Tensor, Tensor]:
    """x (B, 1, 12, 12), y (B,)."""
    y = torch.randint(2, (images,), generator=source)
    start = torch.randint(2, (images, SIDE, lag), generator=source) * 2.0 - 1
    sign = 1.0 - 2 * y[:, None, None]
    parts = [start * sign**i for i in range(-(-SIDE // lag))]
    return torch.cat(parts, 2)[:, None, :, :SIDE], y
