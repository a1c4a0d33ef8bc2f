"""Any trained network as a space: the width of every group of its channels is chosen.

Sources: Fang et al. 2023, arXiv:2301.12900, for groups of channels; Wan et al. 2020,
arXiv:2004.05565, for widths as masks. The options are our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Annotated, Any, Literal

from torch import nn

from search_spaces.choice import Choice, InOrder, Option, Row
from search_spaces.settings import Count, Range
from search_spaces.space import Space, family

WIDTH = "width"  # the name of the choice
GROUPS = "supernets.from_model:offered"  # (model, input shape, classes, divisor, most) -> widths


@dataclass(frozen=True, kw_only=True)
class FromModelSpace(Space):
    """A network whose groups of channels become narrower; nothing else changes.

    A row is a group in the order of the network. Its options are numbers of units, rising to all; a
    unit is a channel, or what can only be kept whole. An option keeps the most important ones.

    widths: of each row and option, in units.
    """

    width: InOrder
    widths: tuple[tuple[int, ...], ...]
    builder = "supernets.from_model:FromModel"
    only_way = True
    costs_add_up = False
    costs_rise = True
    trained = True

    @property
    def choices(self) -> dict[str, Choice]:
        return {WIDTH: self.width}

    @property
    def unpruned(self) -> dict[str, dict[str, list[str]]]:
        """The network itself."""
        return {WIDTH: {row.name: [row.names[-1]] for row in self.width.rows}}

    def resize(self, **changes: Any) -> Space:
        """As in every space. Raises ValueError for another function that makes the network: a file
        does not decide which code runs."""
        own, other = self.settings["model"], changes.get("model", self.settings["model"])
        if other != own and ":" in other:
            raise ValueError(
                f"model: found '{own}', but the network of this file is made by the code of "
                f"'{other}'; set model='{other}' if you trust it"
            )
        return super().resize(**changes)


@family("from_model", {})
def from_model(
    *,
    model: str,
    weights: str | None,
    divisor: Count,
    most: Annotated[int, Range(ge=2, le=64)],
    importance: Literal["l1", "l2", "gamma"],
    **common: Any,
) -> Space:
    """A space of the widths of a trained network.

    Args:
        model: a classifier of torchvision, or `module:function` that returns one; the function may
            take `num_classes`.
        weights: a file with its state dict, .pt, .pth or .safetensors; `null` takes the file that
            torchvision has downloaded before, or the weights that the function returns.
        divisor: numbers of channels are multiples of it; `most`: options of a group, at most.
        importance: by which channels are ordered: `l1` or `l2` norms of all weights of a channel,
            or `gamma`, the scales of its batch norms.

    Raises:
        ValueError: a network that cannot be traced, does not fit the images, or has no group of
            channels that could be narrower.
    """
    shape, classes = tuple(common["input_shape"]), common["classes"]
    widths: Sequence[Sequence[int]] = resolve_name(GROUPS)(model, shape, classes, divisor, most)
    rows = tuple(
        Row(i, i + 1, tuple(Option(f"width_{width}", "conv") for width in offered))
        for i, offered in enumerate(widths)
    )
    names = {option.name for row in rows for option in row.options}
    known = common | {"operations": dict.fromkeys(sorted(names), nn.Identity)}
    return FromModelSpace(
        width=InOrder(rows, joint=True),
        widths=tuple(tuple(offered) for offered in widths),
        stem="plain",
        stem_channels=shape[0],
        head="pool_linear",
        **known,
    )
