"""A stack of convolutions whose widths and kernels are chosen.

Source: Sukthanker et al. 2024, arXiv:2312.10440, the toy space of its public code (conv_macro).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from search_spaces.choice import Choice, InOrder, Option, Row
from search_spaces.settings import Range, Share
from search_spaces.space import Channels, Space, family, with_operations

WIDTH, KERNEL = "width", "kernel"  # the names of the choices
CONVS = 4
LAST_PADDING = 2  # of the fifth convolution, which is fixed

Multiple = Annotated[int, Range(ge=1, le=64)]
Kernel = Annotated[int, Range(ge=1, le=31)]


@dataclass(frozen=True, kw_only=True)
class ConvMacroSpace(Space):
    """Four convolutions with a width and a kernel each, a fixed one, a classifier. Row i of both
    choices is convolution i.

    widths: of each convolution and option, in channels, rising. kernels: rising.
    """

    width: InOrder
    kernel: InOrder
    widths: tuple[tuple[int, ...], ...]
    kernels: tuple[int, ...]
    builder = "supernets.conv_macro:ConvMacros"
    only_way = True
    costs_add_up = False

    @property
    def choices(self) -> dict[str, Choice]:
        return {WIDTH: self.width, KERNEL: self.kernel}

    @property
    def unpruned(self) -> dict[str, dict[str, list[str]]]:
        """The largest widths and kernels."""
        return {
            name: {row.name: [row.names[-1]] for row in choice.rows}
            for name, choice in self.choices.items()
        }


@family("conv_macro", {})
def conv_macro(
    *,
    channels: Channels,
    multiples: Sequence[Multiple],
    kernels: Sequence[Kernel],
    head_channels: Channels,
    hidden: Sequence[Channels],
    last_kernel: Kernel,
    norm: bool,
    dropout: Share,
    **common: Any,
) -> Space:
    """The space of convolution stacks.

    Args:
        channels: the unit of the first convolution's width; it doubles with each convolution.
        multiples: the widths to choose from, in units. kernels: the kernels to choose from.
        head_channels: of the fixed convolution. last_kernel: its kernel; its padding is 2.
        hidden: the units of each hidden layer of the classifier.
        norm: whether batch norms follow the five convolutions. The published space has none; a
            short search hardly starts without.
        dropout: the probability of dropping whole channels, behind the third and the fifth
            convolution.

    Raises:
        ValueError: options that do not rise, an even kernel, images too small for the last one.
    """
    _check(multiples, kernels, last_kernel, min(common["input_shape"][1:]))
    widths, sizes = _options(WIDTH, multiples), _options(KERNEL, kernels)
    operations = {o.name: nn.Identity for o in (*widths, *sizes)}  # sizes are no modules
    return ConvMacroSpace(
        width=InOrder(_rows(widths)),
        kernel=InOrder(_rows(sizes), joint=True),
        widths=tuple(tuple(m * channels << i for m in multiples) for i in range(CONVS)),
        kernels=tuple(kernels),
        stem="plain",
        stem_channels=channels,
        head="pool_linear",
        **with_operations(common, operations),
    )


def _check(multiples: Sequence[int], kernels: Sequence[int], last: int, side: int) -> None:
    """Raises ValueError as `conv_macro`. side: the shorter one of the images, in pixels."""
    for name, given in (("multiples", multiples), ("kernels", kernels)):
        if list(given) != sorted(set(given)) or not given:
            raise ValueError(f"{name}: expected rising numbers, found {list(given)}")
    if even := [k for k in kernels if k % 2 == 0]:
        raise ValueError(f"kernels: expected odd numbers, found {even[0]}")
    most = side // 4 + 2 * LAST_PADDING
    if last > most:
        raise ValueError(
            f"last_kernel: {last} is too large for images with a side of {side}, which is halved "
            f"twice and padded by {LAST_PADDING}; set it to at most {most}"
        )


def _options(kind: str, values: Sequence[int]) -> tuple[Option, ...]:
    return tuple(Option(f"{kind}_{value}", "conv") for value in values)


def _rows(options: tuple[Option, ...]) -> tuple[Row, ...]:
    return tuple(Row(i, i + 1, options) for i in range(CONVS))
