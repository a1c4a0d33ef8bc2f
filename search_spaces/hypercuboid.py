"""The hypercuboid: operations between all widths at every depth, of which a network takes a path.

Source: Hundt et al. 2019, arXiv:1903.09900, "differentiable hyperparameter grid search", and the
MultiChannelNet of its public code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

from search_spaces.choice import KINDS, Choice, InOrder, Option, Row
from search_spaces.settings import Range
from search_spaces.sharp import CANDIDATES
from search_spaces.space import MOST_LAYERS, Channels, Space, family

LAYERS = "layers"  # the name of the choice
MOST_WIDTHS = 8  # options grow with the square


@dataclass(frozen=True, kw_only=True)
class HypercuboidSpace(Space):
    """A grid between stem and head.

    grid: a row per layer, whose options are all operations from every width to every width and
        compete with each other; those of a network form a path through the widths. widths: in
        channels, rising. candidates: the operations. head_channels: of the last block.
    """

    grid: InOrder
    widths: tuple[int, ...]
    candidates: tuple[str, ...]
    head_channels: int
    builder = "supernets.hypercuboid:Hypercuboids"
    only_way = True
    costs_add_up = False  # a budget would choose options that do not fit each other

    @property
    def choices(self) -> dict[str, Choice]:
        return {LAYERS: self.grid}

    def stride(self, layer: int) -> int:
        """Layers come in pairs, the second of which halves the resolution."""
        return 1 + layer % 2


@family("hypercuboid", CANDIDATES)
def hypercuboid(
    *,
    layers: Annotated[int, Range(ge=1, le=MOST_LAYERS)],
    channels: Channels,
    widths: Annotated[int, Range(ge=1, le=MOST_WIDTHS)],
    candidates: Sequence[str],
    head_channels: Channels,
    **common: Any,
) -> HypercuboidSpace:
    """A space of chains whose width is chosen after every layer.

    An option is named after its operation and the widths it connects as multiples of `channels`,
    `sep_conv_3x3 1-4`.

    Args:
        layers: in all, so the final network has as many: `retrain.layers` is null or equal.
        channels: the smallest width.
        widths: how many there are, each twice the one before.
        head_channels: of the block behind the last layer.

    Raises:
        ValueError: a size out of its range.
    """
    multiples = [1 << i for i in range(widths)]
    options = tuple(
        Option(f"{name} {a}-{b}", KINDS.get(name, "op"), a, b)
        for a, b, name in product(multiples, multiples, candidates)
    )
    known = common["operations"]
    named = {o.name: known[name] for o in options if (name := o.name.split()[0]) in known}
    return HypercuboidSpace(
        grid=InOrder(tuple(Row(i, i + 1, options) for i in range(layers))),
        widths=tuple(channels * m for m in multiples),
        candidates=tuple(candidates),
        head_channels=head_channels,
        stem="plain",
        stem_channels=channels,
        head="pool_linear",
        **common | {"operations": known | named},
    )
