"""Stacks of convolutions with nested widths and kernels: supernet and final network.

Source: Sukthanker et al. 2024, arXiv:2312.10440. The public code gates a width twice, as an output
and as the next layer's input; here it is gated once (`supernets.entangled`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.conv_macro import KERNEL, LAST_PADDING, WIDTH, ConvMacroSpace
from supernets.builder import Blueprint, Builder
from supernets.conv_stack import ConvLayout, ConvStack, Layout, start
from supernets.entangled import EntangledBatchNorm2d, EntangledConv2d, Sizes, check_mixed_op, gated
from supernets.layout import channels_first
from supernets.mixture import Mixture
from supernets.network import Logits, Network


class SuperConvStack(Network, ConvStack):  # type: ignore[misc]  # a pass also takes a mixture
    """All widths and kernels in one network: the largest one, its convolutions entangled."""

    def __init__(self, space: ConvMacroSpace):
        ConvStack.__init__(self, layout(space, Architecture.of(space, space.unpruned)))
        self.space: ConvMacroSpace = space
        self.auxiliary = None
        inputs = [space.input_shape[0], *(widths[-1] for widths in space.widths)]
        self.convs = nn.ModuleList(
            EntangledConv2d(a, b, space.kernels[-1]) for a, b in pairwise(inputs)
        )
        if space.settings["norm"]:
            self.norms = nn.ModuleList(EntangledBatchNorm2d(w[-1]) for w in space.widths)
        self.last = EntangledConv2d(
            space.widths[-1][-1],
            self.last.out_channels,
            space.settings["last_kernel"],
            padding=LAST_PADDING,
        )
        start(self)
        self.numbers: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        assert mixture is not None
        width, kernel = mixture.groups[WIDTH], mixture.groups[KERNEL]
        x = channels_first(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            channels = Sizes.of(width.row(i), self.space.widths[i])
            y = conv(x, Sizes.of(kernel.row(i), self.space.kernels), channels.largest)
            x = self.between(i, gated(F.relu(norm(y)), channels))
        return self.head(self.dropout(self.last_norm(self.last(x))))

    def expected_macs(self, gates: Mapping[str, Tensor]) -> Tensor:
        """The exact mean of `supernets.costs.macs` over final networks whose rows are drawn
        independently; of one-hot gates, the count of that network."""
        like = gates[WIDTH]
        key = like.device, like.dtype
        if key not in self.numbers:
            self.numbers[key] = numbers(self.space, like)
        fixed = sum(
            layer.in_features * layer.out_features
            for layer in self.head
            if isinstance(layer, nn.Linear)
        )
        convs = expected_convs(self.space, gates, *self.numbers[key])
        return torch.stack([positions * weights for positions, weights, _ in convs]).sum() + fixed


def numbers(space: ConvMacroSpace, like: Tensor) -> tuple[Tensor, Tensor]:
    """Widths (4, O) and areas of kernels (O,), of the device and type of another tensor."""
    areas = [k * k for k in space.kernels]
    return torch.tensor(space.widths).to(like), torch.tensor(areas).to(like)


def expected_convs(
    space: ConvMacroSpace, gates: Mapping[str, Tensor], widths: Tensor, areas: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of every convolution: its positions on the map, the mean numbers of its weights and of its
    biases. The choices are independent, so that a product has the product of means."""
    C, H, W = space.input_shape
    c_in = gates[WIDTH].new_tensor(float(C))
    for i in range(len(space.widths)):
        c_out = (gates[WIDTH][i, : widths.size(1)] * widths[i]).sum()
        area = (gates[KERNEL][i, : len(areas)] * areas).sum()
        yield H * W, c_in * c_out * area, c_out
        c_in = c_out
        H, W = (side // (2 if i in (1, 2) else 1) for side in (H, W))
    side, channels = last_side(space), space.settings["head_channels"]
    weights = c_in * channels * space.settings["last_kernel"] ** 2
    yield side[0] * side[1], weights, c_in.new_tensor(channels)


def last_side(space: ConvMacroSpace) -> tuple[int, int]:
    """(H, W) of the fixed convolution's maps."""
    _, H, W = space.input_shape
    lost = space.settings["last_kernel"] - 1 - 2 * LAST_PADDING
    return H // 2 // 2 - lost, W // 2 // 2 - lost


class FinalConvStack(Network, ConvStack):  # type: ignore[misc]  # a pass also takes a mixture
    """A final network with what searching and training add."""

    def __init__(self, space: ConvMacroSpace, layout: Layout):
        ConvStack.__init__(self, layout)
        self.space: ConvMacroSpace = space
        self.auxiliary = None

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        return ConvStack.forward(self, channels_first(x))


class ConvMacros(Builder):
    """Builds stacks of convolutions."""

    def supernet(
        self, space: ConvMacroSpace, mixed_op: Callable[..., nn.Module], *, affine: bool
    ) -> SuperConvStack:
        check_mixed_op(mixed_op, space)
        return SuperConvStack(space)

    def final(
        self, space: ConvMacroSpace, architecture: Architecture, *, auxiliary: bool
    ) -> FinalConvStack:
        if auxiliary:
            raise ValueError(
                f"auxiliary_weight: expected 0, as space {space.name} has no auxiliary head"
            )
        return FinalConvStack(space, layout(space, architecture))

    def blueprint(self, space: ConvMacroSpace, architecture: Architecture) -> Blueprint:
        return Blueprint(ConvStack, layout(space, architecture))


def layout(space: ConvMacroSpace, architecture: Architecture) -> Layout:
    """An architecture's network as data."""
    kept = architecture.kept(space)
    widths = [space.widths[i][o] for i, (o,) in enumerate(kept[WIDTH])]
    kernels = [space.kernels[o] for (o,) in kept[KERNEL]]
    norm, channels = space.settings["norm"], space.settings["head_channels"]
    inputs: Sequence[int] = [space.input_shape[0], *widths]
    convs: list[ConvLayout] = [
        {"channels": (a, b), "kernel": k, "norm": norm}
        for a, b, k in zip(inputs, widths, kernels, strict=False)
    ]
    last = widths[-1], channels
    return {
        "convs": convs,
        "last": {"channels": last, "kernel": space.settings["last_kernel"], "norm": norm},
        "padding": LAST_PADDING,
        "side": last_side(space),
        "hidden": list(space.settings["hidden"]),
        "dropout": space.settings["dropout"],
        "classes": space.classes,
    }
