"""Residual networks for small images, in which the width of every convolution and the depth of
every stage are chosen.

Source: Dong & Yang 2019, arXiv:1905.09717; the networks are those of He et al. 2016,
arXiv:1512.03385, section 4.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from search_spaces.choice import Choice, InOrder, Option, Row
from search_spaces.settings import Range
from search_spaces.slices import ChannelSlice
from search_spaces.space import MOST_LAYERS, Channels, Space, family, with_operations

WIDTH, DEPTH = "width", "depth"  # the names of the choices
STAGES = 3
CONVS = 2  # of a block


@dataclass(frozen=True, kw_only=True)
class ResNetSpace(Space):
    """A convolution, three stages of basic blocks, a linear layer.

    Row 0 of `width` is the first convolution, the others are the two of each block, in order; the
    projection of a shortcut has the width of its block's second one. Row s of `depth` is stage s.
    Blocks that a depth cuts off keep their rows, which no longer matter.

    widths: of each stage and option, in channels. depths: in blocks.
    """

    width: InOrder
    depth: InOrder
    widths: tuple[tuple[int, ...], ...]
    depths: tuple[int, ...]
    builder = "supernets.resnets:ResNets"
    only_way = True
    costs_add_up = False

    @property
    def choices(self) -> dict[str, Choice]:
        return {WIDTH: self.width, DEPTH: self.depth}

    @property
    def unpruned(self) -> dict[str, dict[str, list[str]]]:
        """The full widths and depths."""
        return {
            name: {row.name: [row.names[-1]] for row in choice.rows}
            for name, choice in self.choices.items()
        }


@family("tas", {})
def tas(
    *,
    depth: Annotated[int, Range(ge=8, le=MOST_LAYERS)],
    channels: Channels,
    widths: Sequence[Annotated[float, Range(gt=0, le=1)]],
    **common: Any,
) -> Space:
    """A space of residual networks.

    Args:
        depth: layers of the unpruned network, 6 n + 2 for n blocks a stage: 20, 32, 56, 110.
        channels: of the first stage; the second has twice as many, the third four times.
        widths: options of every convolution as shares of its channels, the last of them 1; rounded
            down to whole channels, and only the largest share of equal widths is offered.

    Raises:
        ValueError: another depth, or shares that do not rise to 1.
    """
    blocks, rest = divmod(depth - 2, 2 * STAGES)
    if rest:
        raise ValueError(f"depth: expected 6 n + 2, such as 20 or 32, found {depth}")
    if list(widths) != sorted(set(widths)) or not widths or widths[-1] != 1:
        raise ValueError(f"widths: expected shares that rise to 1, found {list(widths)}")
    offered = [_offered(channels << stage, widths) for stage in range(STAGES)]
    of_stage = [_options("width", share) for share in offered]
    exits = exits_of(blocks)
    convs = [of_stage[0]] + [names for names in of_stage for _ in range(CONVS * blocks)]
    ends = STAGES * [_options("depth", exits)]
    exit_ops = {o.name: nn.Identity for o in ends[0]}  # an exit is no layer
    sliced = {o.name: ChannelSlice for options in of_stage for o in options}
    return ResNetSpace(
        width=InOrder(_rows(convs)),
        depth=InOrder(_rows(ends), joint=True),
        widths=tuple(tuple(shares.values()) for shares in offered),
        depths=tuple(exits),
        stem="plain",
        stem_channels=channels,
        head="pool_linear",
        **with_operations(common, {**exit_ops, **sliced}),
    )


def exits_of(blocks: int) -> list[int]:
    """The depths to choose from: odd numbers and all blocks; up to three blocks, every number."""
    return [n for n in range(1, blocks + 1) if n % 2 or n == blocks or blocks <= 3]


def _offered(channels: int, shares: Sequence[float]) -> dict[float, int]:
    """Share -> width, rising."""
    last = {max(1, int(share * channels + 1e-9)): float(share) for share in shares}
    return {share: width for width, share in last.items()}


def _options(kind: str, values: Any) -> tuple[Option, ...]:
    return tuple(Option(f"{kind}_{value}", "conv" if kind == "width" else "op") for value in values)


def _rows(options: Sequence[tuple[Option, ...]]) -> tuple[Row, ...]:
    return tuple(Row(i, i + 1, offered) for i, offered in enumerate(options))
