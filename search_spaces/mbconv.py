"""Chains of inverted residual blocks (MBConv), as in MobileNetV2; the space of Single-Path NAS.

Source: Stamoulis et al. 2019, arXiv:1904.02877, and its public code; the blocks are those of
Sandler et al. 2018, arXiv:1801.04381.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from search_spaces.chains import Block, ChainSpace, of_blocks
from search_spaces.choice import Option
from search_spaces.ops import MBConv, skip_connect
from search_spaces.settings import Range
from search_spaces.space import MOST_LAYERS, Channels, family

SKIP = "skip_connect"
CANDIDATES = {SKIP: skip_connect} | {
    f"mbconv_{k}x{k}_e{e}": partial(MBConv, kernel_size=k, expansion=e)
    for k, e in ((3, 1), (3, 3), (3, 6), (5, 3), (5, 6))
}
FIRST, LAST = "mbconv_3x3_e1", "mbconv_3x3_e6"  # the fixed blocks at both ends
Width = Annotated[float, Range(gt=0, le=1000)]


@family("mbconv", CANDIDATES)
def mbconv(
    *,
    layers: Annotated[int, Range(ge=1, le=MOST_LAYERS)],
    channels: Channels,
    widths: Sequence[Width],
    strides: Sequence[Literal[1, 2]],
    ends: Sequence[Width],
    candidates: Sequence[str],
    stem: Literal["plain", "mobile"] = "plain",
    **common: Any,
) -> ChainSpace:
    """A space of chains of MBConv blocks, between two fixed blocks.

    Blocks are shared out evenly to the stages, the first ones get one more where needed. The first
    block of a stage changes the width and has the stride. A skip connection is an option only where
    it is the identity: at stride 1 and equal widths.

    Args:
        layers: blocks that are searched, so the final network has as many: `retrain.layers` is null
            or equal.
        channels: of the stem; widths are multiples of it.
        widths: of each stage, as a multiple of `channels`, rounded to whole channels.
        strides: of each stage, 1 or 2.
        ends: widths of the fixed blocks: the first one (3x3, no expansion), the last one (3x3,
            expansion 6).
        candidates: options of the blocks that are searched.
        stem: `plain` keeps the resolution, `mobile` halves it.

    Raises:
        ValueError: a size out of its range, fewer blocks than stages, or lists of other lengths.
    """
    _check_lengths(layers, widths, strides, ends)
    each, more = divmod(layers, len(widths))
    shapes = [(ends[0], 1, [FIRST])]
    for stage, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        repeated = each + (stage < more)
        shapes += [(width, 1 if i else stride, list(candidates)) for i in range(repeated)]
    shapes.append((ends[1], 1, [LAST]))
    blocks = _blocks(channels, shapes)
    return of_blocks(blocks, stem=stem, head="expand_pool_linear", **common)


def _check_lengths(
    layers: int, widths: Sequence[object], strides: Sequence[object], ends: Sequence[object]
) -> None:
    if not 1 <= len(widths) <= layers:
        raise ValueError(
            f"widths: expected 1 to {layers}, at most one per layer, found {len(widths)}"
        )
    if len(strides) != len(widths):
        raise ValueError(f"strides: expected one per width, {len(widths)}, found {len(strides)}")
    if len(ends) != 2:
        raise ValueError(f"ends: expected 2 widths, of the first and the last block, found {ends}")


def _blocks(channels: int, shapes: Sequence[tuple[float, int, list[str]]]) -> list[Block]:
    """The blocks of these widths, strides and options, behind a stem of so many channels."""
    blocks: list[Block] = []
    c_in = channels
    for i, (width, stride, names) in enumerate(shapes):
        c_out = max(1, round(width * channels))
        same = stride == 1 and c_in == c_out
        options = tuple(Option.of(name) for name in names if same or name != SKIP)
        blocks.append(Block(i, i + 1, options, c_in, c_out, stride))
        c_in = c_out
    return blocks
