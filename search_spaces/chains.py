"""Chains: blocks one after the other, each of which keeps one option; widths and strides change on
the way.

Source of the form: Sandler et al. 2018, arXiv:1801.04381, table 2; as a search space Cai et al.
2019, arXiv:1812.00332, and Stamoulis et al. 2019, arXiv:1904.02877.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from search_spaces.cells import Cell, CellSpace, Edge, Layer
from search_spaces.choice import Choice, Option, Row
from search_spaces.darts import CANDIDATES
from search_spaces.settings import Range
from search_spaces.space import MOST_LAYERS, Channels, family

BLOCKS = "blocks"  # the name of the choice


@dataclass(frozen=True)
class Block(Row):
    """One position of a chain: `c_in` to `c_out` channels, the resolution divided by `stride`."""

    c_in: int
    c_out: int
    stride: int


@dataclass(frozen=True)
class Chain(Choice):
    """The blocks, in order; state i is the output of block i - 1."""

    blocks: tuple[Block, ...]
    keep = 1
    inputs = 1
    whole = True

    @property
    def rows(self) -> tuple[Block, ...]:
        return self.blocks

    @property
    def outputs(self) -> tuple[int, ...]:
        return (len(self.blocks),)


@dataclass(frozen=True, kw_only=True)
class ChainSpace(CellSpace):
    """A chain between stem and head; every block is a cell of one edge, and decides for itself."""

    chain: Chain
    only_way = True

    @property
    def choices(self) -> dict[str, Choice]:
        return {BLOCKS: self.chain}

    @property
    def body(self) -> list[str]:
        return [BLOCKS]


@family("chain", CANDIDATES)
def chain(
    *,
    layers: Annotated[int, Range(ge=1, le=MOST_LAYERS)],
    channels: Channels,
    widths: Sequence[Annotated[float, Range(gt=0, le=1000)]],
    candidates: Sequence[str],
    stem: Literal["plain", "imagenet"] = "plain",
    **common: Any,
) -> ChainSpace:
    """A space of chains: stages of equally many blocks, the first ones one more where needed.

    The first block of a stage changes the width and, from the second stage on, halves the
    resolution.

    Args:
        layers: blocks in all, so the final network has as many: `retrain.layers` is null or equal.
        channels: of the stem; widths are multiples of it.
        widths: of each stage, as a multiple of `channels`, rounded to whole channels.
        candidates: options of every block; all must be able to change width and stride, which is
            checked before a run.
        stem: `plain` keeps the resolution, `imagenet` divides it by 8.

    Raises:
        ValueError: a size out of its range, or fewer blocks than stages.
    """
    if not 1 <= len(widths) <= layers:
        raise ValueError(
            f"widths: expected 1 to {layers}, at most one per layer, found {len(widths)}"
        )
    blocks = _blocks(layers, channels, widths, tuple(map(Option.of, candidates)))
    return of_blocks(blocks, stem=stem, head="bn_relu_pool_linear", **common)


def of_blocks(blocks: Sequence[Block], **common: Any) -> ChainSpace:
    """The space of a chain of these blocks; `common` are the other fields of a `Space`."""
    return ChainSpace(
        chain=Chain(tuple(blocks)),
        cells={block.name: _cell(block) for block in blocks},
        layers=tuple(_layer(i, block) for i, block in enumerate(blocks)),
        preprocess=False,
        stem_channels=blocks[0].c_in,
        **common,
    )


def _cell(block: Block) -> Cell:
    edge = Edge(0, 1, block.options, strided=block.stride == 2)
    return Cell(1, 1, (edge,), keep=1, output="last")


def _layer(i: int, block: Block) -> Layer:
    return Layer(block.name, BLOCKS, block.c_out, reduction=block.stride == 2, row=i)


def _blocks(
    layers: int, channels: int, widths: Sequence[float], options: tuple[Option, ...]
) -> list[Block]:
    blocks: list[Block] = []
    c_in = channels
    each, more = divmod(layers, len(widths))
    for stage, width in enumerate(widths):
        c_out = max(1, round(width * channels))
        for i in range(each + (stage < more)):
            at, stride = len(blocks), 2 if stage and not i else 1
            blocks.append(Block(at, at + 1, options, c_in, c_out, stride))
            c_in = c_out
    return blocks
