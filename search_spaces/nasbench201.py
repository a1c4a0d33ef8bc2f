"""The NAS-Bench-201 cell space.

Source: Dong & Yang 2020, arXiv:2001.00326, section 2; shapes and order of the public code.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from torch import nn

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.ops import AvgPool, nor_conv, projecting_skip, zero
from search_spaces.settings import Range
from search_spaces.space import MOST_LAYERS, Channels, Nodes, family

CANDIDATES: dict[str, Callable[..., nn.Module]] = {
    "none": zero,
    "skip_connect": projecting_skip,
    "nor_conv_1x1": partial(nor_conv, kernel_size=1),
    "nor_conv_3x3": partial(nor_conv, kernel_size=3),
    "avg_pool_3x3": AvgPool,
}


@family("nasbench201", CANDIDATES)
def nasbench201(
    *,
    layers: Annotated[int, Range(ge=5, le=MOST_LAYERS)],
    nodes: Nodes,
    channels: Channels,
    candidates: Sequence[str | Sequence[str]],
    **common: Any,
) -> CellSpace:
    """The NAS-Bench-201 space: three stages of N equal cells, a residual block of stride 2 between
    them.

    Args:
        layers: 3N + 2, the two residual blocks included (the benchmark: N = 5, 17 layers).
        nodes: computed nodes of the cell (the benchmark: 3, hence 6 edges).

    Raises:
        ValueError: a size that is not a positive whole number or not 3N + 2, an unknown candidate.
    """
    if layers % 3 != 2:
        raise ValueError(
            f"layers: {layers} is not 3N + 2 (three stages of N cells and two residual blocks); "
            f"set it to {layers // 3 * 3 + 2} or {layers // 3 * 3 + 5}"
        )
    cell = Cell(1, nodes, complete_edges(1, nodes, candidates), keep=None, output="last")
    cells_per_stage = (layers - 2) // 3
    places: list[Layer] = []
    for stage in range(3):
        width = channels * 2**stage
        if stage:
            places.append(Layer(None, None, width, reduction=True))
        places += [Layer("cell", "cell", width, reduction=False)] * cells_per_stage
    return CellSpace(
        cells={"cell": cell},
        layers=tuple(places),
        stem="plain",
        stem_channels=channels,
        preprocess=False,
        head="bn_relu_pool_linear",
        **common,
    )
