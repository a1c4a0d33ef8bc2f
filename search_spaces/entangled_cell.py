"""Three small cells whose edges hold convolutions of two kinds and two kernels.

Source: Sukthanker et al. 2024, arXiv:2312.10440, the toy cell space of its public code.
"""

from collections.abc import Sequence
from typing import Any

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.darts import CANDIDATES
from search_spaces.space import Channels, family

NODES = 2


@family("entangled_cell", CANDIDATES)
def entangled_cell(
    *, channels: Channels, candidates: Sequence[str | Sequence[str]], **common: Any
) -> CellSpace:
    """A reduction, a normal and a reduction cell of two nodes, straight on the image; both
    reductions share their choice. The second one has twice the channels.

    With strategy/mixed_op=entangled the candidates of a kind share their weights. The published
    networks have a dropout of 0.2 behind each cell, and batch norms without scale and shift; here
    dropout is in the head alone, and the operations of a final network have both.

    Raises:
        ValueError: a size that is not a positive whole number, an unknown candidate.
    """
    cells = {
        "normal": Cell(1, NODES, complete_edges(1, NODES, candidates), keep=None),
        "reduce": Cell(1, NODES, complete_edges(1, NODES, candidates, reduction=True), keep=None),
    }
    layers = (
        Layer("reduce", "reduce", channels, reduction=True),
        Layer("normal", "normal", channels, reduction=False),
        Layer("reduce", "reduce", 2 * channels, reduction=True),
    )
    return CellSpace(
        cells=cells,
        layers=layers,
        stem="none",
        stem_channels=common["input_shape"][0],
        preprocess=True,
        head="max_pool_hidden",
        **common | {"affine": False},
    )
