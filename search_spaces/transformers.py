"""Transformers whose depth, embedding width, heads and MLP ratios are chosen.

Sources: Chen et al. 2021, arXiv:2107.00651 (AutoFormer), for images; Sukthanker et al. 2024,
arXiv:2312.10440, and its public code, for text; Devvrit et al. 2023, arXiv:2310.07707 (MatFormer),
for MLPs of nested widths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import nn

from search_spaces.choice import Choice, InOrder, Option, Row
from search_spaces.settings import Count, Positive, Range
from search_spaces.space import MOST_LAYERS, Channels, Space, family, with_operations

DEPTH, WIDTH, HEADS, RATIO = "depth", "width", "heads", "ratio"  # the names of the choices
Depth = Annotated[int, Range(ge=1, le=MOST_LAYERS)]
Mlp = Literal["gelu", "swiglu"]


@dataclass(frozen=True, kw_only=True)
class TransformerSpace(Space):
    """Pre-norm blocks of attention and an MLP on tokens of one embedding width.

    `depth` and `width` have one row, for the network; row l of `heads` and `ratio` is block l + 1.
    Blocks that a depth cuts off keep their rows, which no longer matter.

    sizes: the options of each choice as numbers: blocks, features, heads, hidden features of an MLP
    per feature. All heads have `head_dim` features, so that fewer heads are a part of more.
    """

    rows: Mapping[str, InOrder]
    sizes: Mapping[str, tuple[Any, ...]]
    tokens: int  # T, of an input
    builder = "supernets.transformer:Transformers"
    only_way = True
    costs_add_up = False

    @property
    def choices(self) -> dict[str, Choice]:
        return dict(self.rows)

    @property
    def unpruned(self) -> dict[str, dict[str, list[str]]]:
        """The largest option of every row."""
        return {
            name: {row.name: [row.names[-1]] for row in choice.rows}
            for name, choice in self.rows.items()
        }


@dataclass(frozen=True, kw_only=True)
class TextSpace(TransformerSpace):
    """Decoders: every token is predicted from those before it."""

    reads_text = True


@family("vit", {})
def vit(
    *,
    depths: Sequence[Depth],
    widths: Sequence[Channels],
    heads: Sequence[Count],
    head_dim: Channels,
    ratios: Sequence[Positive],
    mlp: Mlp,
    bias: bool,
    patch: Count,
    pool: Literal["class_token", "mean"],
    **common: Any,
) -> Space:
    """A space of vision transformers.

    Args:
        depths, widths: in blocks and features, of the network. heads, ratios: of each block; a
            ratio is that of hidden features to features of an MLP. All rise.
        head_dim: features of a head.
        mlp: `gelu`, or `swiglu` with a third matrix.
        bias: whether linear layers and norms have one.
        patch: side of the squares that become tokens, in pixels.
        pool: what is classified: a token of its own, or the mean of all.

    Raises:
        ValueError: numbers that do not rise. Images are checked where networks are built.
    """
    _, H, W = common["input_shape"]
    tokens = (H // patch) * (W // patch) + (pool == "class_token")
    return TransformerSpace(**_parts(depths, widths, heads, ratios, common), tokens=tokens)


@family("gpt", {})
def gpt(
    *,
    depths: Sequence[Depth],
    widths: Sequence[Channels],
    heads: Sequence[Count],
    head_dim: Channels,
    ratios: Sequence[Positive],
    mlp: Mlp,
    bias: bool,
    tied: bool,
    **common: Any,
) -> Space:
    """A space of decoders for text; `data.context` is the length of their input.

    Args:
        tied: whether the last layer is the table of embeddings. The others are those of `vit`.

    Raises:
        ValueError: numbers that do not rise. Inputs are checked where networks are built.
    """
    T = common["input_shape"][2]
    return TextSpace(**_parts(depths, widths, heads, ratios, common), tokens=T)


def hidden(width: int, ratio: float) -> int:
    """The hidden features of an MLP."""
    return max(1, round(ratio * width))


def _parts(
    depths: Sequence[int],
    widths: Sequence[int],
    heads: Sequence[int],
    ratios: Sequence[float],
    common: dict[str, Any],
) -> dict[str, Any]:
    """The fields of a space. Raises ValueError for options that do not rise."""
    given = {"depths": depths, "widths": widths, "heads": heads, "ratios": ratios}
    for name, values in given.items():
        if not values or list(values) != sorted(set(values)):
            raise ValueError(f"{name}: expected numbers that rise, found {list(values)}")
    sizes: dict[str, tuple[Any, ...]] = dict(
        zip((DEPTH, WIDTH, HEADS, RATIO), map(tuple, given.values()), strict=True)
    )
    options = {
        name: tuple(Option(f"{name}_{value:g}") for value in values)
        for name, values in sizes.items()
    }
    rows = {
        name: _rows(offered, 1 if name in (DEPTH, WIDTH) else depths[-1], joint=name == DEPTH)
        for name, offered in options.items()
    }
    operations = {o.name: nn.Identity for offered in options.values() for o in offered}
    return with_operations(common, operations) | {
        "rows": rows,
        "sizes": sizes,
        "stem": "plain",
        "stem_channels": widths[-1],
        "head": "pool_linear",
    }


def _rows(options: tuple[Option, ...], count: int, *, joint: bool) -> InOrder:
    return InOrder(tuple(Row(i, i + 1, options) for i in range(count)), joint=joint)
