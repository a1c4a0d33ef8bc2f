"""The DARTS cell space.

Source: Liu et al. 2019, arXiv:1806.09055, section 3.1; shapes and order of the public code.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from torch import nn

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.ops import Pool, SepConv, dil_conv, skip_connect, zero
from search_spaces.settings import Count, Range, checked
from search_spaces.space import MOST_LAYERS, Channels, Nodes, known_operations
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
) -> CellSpace:
    """The DARTS space: normal cells, and reduction cells at layers//3 and 2*layers//3 that double
    the channels.

    Args:
        candidates: one list for all edges, or `{normal: ..., reduce: ...}`, each one list or one
            list an edge.
        stem: `small` and `plain` keep the resolution (one 3x3 convolution), `imagenet` divides it
            by 8.
        stem_multiplier: stem channels / `channels`; by default 3 for `small`, else 1.
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
    multiplier = STEMS[stem].multiplier if stem_multiplier is None else stem_multiplier
    return CellSpace(
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
