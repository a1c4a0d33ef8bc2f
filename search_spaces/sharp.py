"""The candidates of the sharpDARTS spaces; the space itself is `search_spaces.darts.sharp`.

Source: Hundt et al. 2019, arXiv:1903.09900; names and settings of the public code. There
the dilated flood convolution of 5x5 lacks padding and shrinks its map; here it does not.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from search_spaces.ops import ResizablePool, SharpSepConv, flood_conv, skip_connect, zero

CHOKE = 32  # channels between the two convolutions, whatever the width of the cell

CANDIDATES: dict[str, Callable[..., nn.Module]] = {
    "none": zero,
    "max_pool_3x3": partial(ResizablePool, kind="max"),
    "avg_pool_3x3": partial(ResizablePool, kind="avg"),
    "skip_connect": skip_connect,
    "sep_conv_3x3": partial(SharpSepConv, kernel_size=3),
    "sep_conv_5x5": partial(SharpSepConv, kernel_size=5),
    "sep_conv_7x7": partial(SharpSepConv, kernel_size=7),
    "dil_conv_3x3": partial(SharpSepConv, kernel_size=3, dilation=2),
    "dil_conv_5x5": partial(SharpSepConv, kernel_size=5, dilation=2),
    "flood_conv_3x3": partial(flood_conv, kernel_size=3),
    "flood_conv_5x5": partial(flood_conv, kernel_size=5),
    "dil_flood_conv_3x3": partial(flood_conv, kernel_size=3, dilation=2),
    "dil_flood_conv_5x5": partial(flood_conv, kernel_size=5, dilation=2),
    "choke_conv_3x3": partial(SharpSepConv, kernel_size=3, c_mid=CHOKE),
    "dil_choke_conv_3x3": partial(SharpSepConv, kernel_size=3, dilation=2, c_mid=CHOKE),
}
