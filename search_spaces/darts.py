"""The DARTS cell space: `op(c_in, c_out, stride, *, affine, search)`, (B, C, H, W) -> (B, C', H/s,
W/s).

Source: Liu et al. 2019, arXiv:1806.09055, section 3.1; shapes and order of the public code.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from search_spaces.ops import FactorizedReduce, Zero, depthwise_separable
from search_spaces.settings import Count, Range, checked
from search_spaces.space import (
    MOST_LAYERS,
    Cell,
    Channels,
    Layer,
    Nodes,
    Space,
    complete_edges,
    known_operations,
)


def zero(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    """No connection."""
    return Zero(c_in, c_out, stride)


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


def dil_conv(
    c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, kernel_size: int
) -> nn.Module:
    """Depthwise-separable convolution of dilation 2, applied once."""
    return depthwise_separable(
        c_in, c_out, stride, affine=affine, kernel_size=kernel_size, dilation=2
    )


CANDIDATES: dict[str, Callable[..., nn.Module]] = {
    "none": zero,
    "max_pool_3x3": partial(Pool, kind="max"),
    "avg_pool_3x3": partial(Pool, kind="avg"),
    "skip_connect": skip_connect,
    "sep_conv_3x3": partial(SepConv, kernel_size=3),
    "sep_conv_5x5": partial(SepConv, kernel_size=5),
    "dil_conv_3x3": partial(dil_conv, kernel_size=3),
    "dil_conv_5x5": partial(dil_conv, kernel_size=5),
}

STEM_MULTIPLIERS = {"small": 3, "imagenet": 1}


@checked
def darts(
    *,
    layers: Annotated[int, Range(ge=3, le=MOST_LAYERS)],
    nodes: Nodes,
    channels: Channels,
    candidates: Sequence[str | Sequence[str]] | Mapping[str, Any],
    input_shape: Sequence[int],
    classes: Count,
    stem: Literal["small", "imagenet"] = "small",
    stem_multiplier: Channels | None = None,
    share_alphas: bool = True,
    operations: Mapping[str, Callable[..., nn.Module]] | None = None,
) -> Space:
    """The DARTS space: normal cells, and reduction cells at layers//3 and 2*layers//3 that double
    the channels.

    Args:
        candidates: one list for all edges, or `{normal: ..., reduce: ...}`, each one list or one
            list an edge.
        stem: `small` keeps the resolution (one 3x3 convolution), `imagenet` divides it by 8.
        stem_multiplier: stem channels / `channels`; by default 3 for `small`, 1 for `imagenet`.
        share_alphas: False gives every layer alphas of its own (D-DARTS, arXiv:2108.09306).

    Raises:
        ValueError: a size that is not a positive whole number, an unknown candidate or stem.
    """
    if isinstance(candidates, Mapping) and set(candidates) != {"normal", "reduce"}:
        raise ValueError(
            "candidates: expected a list, or lists for 'normal' and 'reduce', found "
            f"{', '.join(map(str, candidates)) or 'nothing'}"
        )
    by_cell = (
        candidates
        if isinstance(candidates, Mapping)
        else dict(normal=candidates, reduce=candidates)
    )
    cells = {
        kind: Cell(
            2, nodes, complete_edges(2, nodes, by_cell[kind], reduction=kind == "reduce"), keep=2
        )
        for kind in ("normal", "reduce")
    }
    edges = [edge for cell in cells.values() for edge in cell.edges]
    reductions = {layers // 3, 2 * layers // 3}
    places, width = [], channels
    for i in range(layers):
        kind = "reduce" if i in reductions else "normal"
        width = width * 2 if i in reductions else width
        group = kind if share_alphas else f"{i:02d}_{kind}"
        places.append(Layer(kind, group, width, reduction=i in reductions))
    multiplier = STEM_MULTIPLIERS[stem] if stem_multiplier is None else stem_multiplier
    return Space(
        name="darts",
        family=darts,
        settings=dict(
            layers=layers,
            nodes=nodes,
            channels=channels,
            candidates=candidates,
            input_shape=tuple(input_shape),
            classes=classes,
            stem=stem,
            stem_multiplier=stem_multiplier,
            share_alphas=share_alphas,
        ),
        cells=cells,
        layers=tuple(places),
        operations=known_operations(CANDIDATES, operations or {}, edges),
        input_shape=(input_shape[0], input_shape[1], input_shape[2]),
        classes=classes,
        stem=stem,
        stem_channels=multiplier * channels,
        preprocess=True,
        head="pool_linear",
        extra_operations=operations or {},
    )
