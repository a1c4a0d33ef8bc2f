"""The DARTS cell space.

Source: Liu et al. 2019, arXiv:1806.09055, section 3.1; shapes and order of the public code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from torch import nn

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.ops import Noise, Pool, SepConv, dil_conv, skip_connect, zero
from search_spaces.settings import Range
from search_spaces.sharp import CANDIDATES as SHARP
from search_spaces.space import MOST_LAYERS, Channels, Nodes, family
from search_spaces.stems import STEMS

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


def stacked(
    *,
    layers: Annotated[int, Range(ge=3, le=MOST_LAYERS)],
    nodes: Nodes,
    channels: Channels,
    candidates: Sequence[str | Sequence[str]] | Mapping[str, Any],
    stem: Literal["small", "imagenet"] = "small",
    stem_multiplier: Channels | None = None,
    share_alphas: bool = True,
    **common: Any,
) -> CellSpace:
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
    multiplier = STEMS[stem].multiplier if stem_multiplier is None else stem_multiplier
    return CellSpace(
        cells=_cells(nodes, candidates),
        layers=tuple(_layers(layers, channels, share_alphas)),
        stem=stem,
        stem_channels=multiplier * channels,
        preprocess=True,
        head="pool_linear",
        **common,
    )


def _cells(
    nodes: int, candidates: Sequence[str | Sequence[str]] | Mapping[str, Any]
) -> dict[str, Cell]:
    if not isinstance(candidates, Mapping):
        candidates = {"normal": candidates, "reduce": candidates}
    if set(candidates) != {"normal", "reduce"}:
        raise ValueError(
            "candidates: expected a list, or lists for 'normal' and 'reduce', found "
            f"{', '.join(map(str, candidates)) or 'nothing'}"
        )
    return {
        kind: Cell(2, nodes, complete_edges(2, nodes, names, reduction=kind == "reduce"), keep=2)
        for kind, names in sorted(candidates.items())
    }


def _layers(layers: int, channels: int, share_alphas: bool) -> Iterator[Layer]:
    reductions = {layers // 3, 2 * layers // 3}
    for i in range(layers):
        kind = "reduce" if i in reductions else "normal"
        channels = channels * 2 if i in reductions else channels
        group = kind if share_alphas else f"{i:02d}_{kind}"
        yield Layer(kind, group, channels, reduction=i in reductions)


# Noise: the space S4 of Zela et al. 2020, arXiv:1909.09656, section 3.
darts = family("darts", CANDIDATES | {"noise": Noise})(stacked)
# The same cells with other operations: sharpDARTS, Hundt et al. 2019, arXiv:1903.09900.
sharp = family("sharp", SHARP)(stacked)
