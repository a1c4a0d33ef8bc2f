"""The GOLD-NAS space: DARTS's skeleton, in which every cell decides for itself.

A node may take any number of inputs, an edge may keep several candidates. Source: Bi et al. 2020,
arXiv:2007.03331; candidates, their order and sizes of the public code (sunsmarterjie/GOLD_NAS).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from torch import nn

from search_spaces.cells import CellSpace
from search_spaces.darts import stacked
from search_spaces.ops import normalised_skip, unscaled_sep_conv
from search_spaces.settings import Range
from search_spaces.space import MOST_LAYERS, Channels, Nodes, family

CANDIDATES: dict[str, Callable[..., nn.Module]] = {
    "skip_connect": normalised_skip,
    "sep_conv_3x3": partial(unscaled_sep_conv, kernel_size=3),
}


@family("goldnas", CANDIDATES)
def goldnas(
    *,
    layers: Annotated[int, Range(ge=3, le=MOST_LAYERS)],
    nodes: Nodes,
    channels: Channels,
    candidates: Sequence[str | Sequence[str]],
    stem: Literal["small", "imagenet"] = "small",
    stem_multiplier: Channels | None = None,
    **common: Any,
) -> CellSpace:
    """The GOLD-NAS space; every layer is a group, with alphas of its own.

    What keeps one candidate an edge (`strongest`) keeps two inputs a node here, as in `darts`.

    Args:
        stem, stem_multiplier: as in `darts`.

    Raises:
        ValueError: a size that is not a positive whole number, an unknown candidate or stem.
    """
    return stacked(
        layers=layers,
        nodes=nodes,
        channels=channels,
        candidates=candidates,
        stem=stem,
        stem_multiplier=stem_multiplier,
        share_alphas=False,
        affine=False,
        **common,
    )
