"""The GOLD-NAS space: DARTS's skeleton, in which every cell decides for itself.

A node may take any number of inputs, an edge may keep several candidates. Source: Bi et al. 2020,
arXiv:2007.03331; candidates, their order and sizes of the public code (sunsmarterjie/GOLD_NAS).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from torch import nn

from search_spaces import darts
from search_spaces.cells import CellSpace, complete_edges
from search_spaces.ops import normalised_skip, unscaled_sep_conv
from search_spaces.settings import Count, Range, checked
from search_spaces.space import MOST_LAYERS, Channels, Nodes, known_operations

CANDIDATES: dict[str, Callable[..., nn.Module]] = {
    "skip_connect": normalised_skip,
    "sep_conv_3x3": partial(unscaled_sep_conv, kernel_size=3),
}


@checked
def goldnas(
    *,
    layers: Annotated[int, Range(ge=3, le=MOST_LAYERS)],
    nodes: Nodes,
    channels: Channels,
    candidates: Sequence[str | Sequence[str]],
    input_shape: Sequence[int],
    classes: Count,
    stem: Literal["small", "imagenet"] = "small",
    stem_multiplier: Channels | None = None,
    operations: Mapping[str, Callable[..., nn.Module]] | None = None,
) -> CellSpace:
    """The GOLD-NAS space; every layer is a group, with alphas of its own.

    What keeps one candidate an edge (`strongest`) keeps two inputs a node here, as in `darts`.

    Args:
        stem, stem_multiplier: as in `darts`.

    Raises:
        ValueError: a size that is not a positive whole number, an unknown candidate or stem.
    """
    extra = operations or {}
    known = known_operations(CANDIDATES, extra, complete_edges(2, nodes, candidates))
    skeleton = darts.darts(
        layers=layers,
        nodes=nodes,
        channels=channels,
        candidates=candidates,
        input_shape=input_shape,
        classes=classes,
        stem=stem,
        stem_multiplier=stem_multiplier,
        share_alphas=False,
        operations={name: op for name, op in extra.items() if name not in darts.CANDIDATES},
    )
    return replace(
        skeleton,
        name="goldnas",
        family=goldnas,
        settings={k: v for k, v in skeleton.settings.items() if k != "share_alphas"},
        operations=known,
        affine=False,
        extra_operations=extra,
    )
