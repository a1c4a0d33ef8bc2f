"""Residual networks whose widths and depths are chosen: the supernet, the final network, the costs.

Source: Dong & Yang 2019, arXiv:1905.09717, sections 3.1 and 3.2, and its public code.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.resnets import DEPTH, STAGES, WIDTH, ResNetSpace
from search_spaces.slices import ChannelSlice, added, padded, resampled
from supernets.builder import Blueprint, Builder
from supernets.checkpointing import checkpointed
from supernets.layout import channels_first, laid_as
from supernets.mixture import GroupMixture, Mixture
from supernets.network import Logits, Network
from supernets.resnet import BlockLayout, Layout, ResNet
from supernets.skeleton import pool_linear

MakeMixedOp = Callable[..., nn.Module]


class WidthConv(nn.Module):
    """A convolution with all filters, whose first ones are mixed over the widths that run.

    x (B, C, H, W) of up to c_in channels, the row of a mixture -> (B, C', H', W'), C' the largest
    width that runs. Each width has a batch norm of its own.
    """

    def __init__(
        self,
        c_in: int,
        widths: Sequence[int],
        mixed_op: MakeMixedOp,
        *,
        kernel_size: int = 3,
        stride: int = 1,
    ):
        super().__init__()
        self.c_in, self.widths, full = c_in, widths, widths[-1]
        self.conv = nn.Conv2d(c_in, full, kernel_size, stride, kernel_size // 2, bias=False)
        slices = [partial(ChannelSlice, width=width) for width in widths]
        self.mixed = mixed_op(slices, full, full, 1, affine=True)

    def forward(self, x: Tensor, row: GroupMixture) -> Tensor:
        (active,) = row.active
        widest = max(self.widths[o] for o in active)
        y = self.mixed(self.conv(padded(x, self.c_in))[:, :widest], row.gates[0], active)
        return laid_as(y if row.factors is None else row.factors[0] * y, x)


class WidthBlock(nn.Module):
    """Two convolutions beside a shortcut: x, the rows of both -> (B, C, H', W')."""

    def __init__(self, c_in: int, widths: Sequence[int], mixed_op: MakeMixedOp, *, strided: bool):
        super().__init__()
        self.first = WidthConv(c_in, widths, mixed_op, stride=2 if strided else 1)
        self.second = WidthConv(widths[-1], widths, mixed_op)
        self.pool, self.projection = nn.AvgPool2d(2, ceil_mode=True), None
        if strided:
            self.projection = WidthConv(c_in, widths, mixed_op, kernel_size=1)

    def forward(self, x: Tensor, first: GroupMixture, second: GroupMixture) -> Tensor:
        y = self.second(F.relu(self.first(x, first)), second)
        if self.projection is not None:
            x = self.projection(self.pool(x), second)
        return F.relu(added(x, y))


class Stage(nn.Module):
    """Blocks with exits: the outputs at the exits that run, resampled to the widest and mixed.

    inputs: (x,); widths: two rows per block; depth: the row of the stage.
    """

    def __init__(self, blocks: Sequence[WidthBlock], depths: Sequence[int]):
        super().__init__()
        self.blocks, self.depths = nn.ModuleList(blocks), depths

    def forward(
        self, inputs: Sequence[Tensor], widths: Sequence[GroupMixture], depth: GroupMixture
    ) -> Tensor:
        (x,), (active,) = inputs, depth.active
        exits = {self.depths[o]: depth.gates[0, o] for o in active}
        outputs = []
        for i, block in enumerate(self.blocks[: max(exits)]):
            x = block(x, widths[2 * i], widths[2 * i + 1])
            if i + 1 in exits:
                outputs.append((exits[i + 1], x))
        widest = max(y.size(1) for _, y in outputs)
        y = torch.stack([gate * resampled(y, widest) for gate, y in outputs]).sum(0)
        return laid_as(y if depth.factors is None else depth.factors[0] * y, x)


class SuperResNet(Network):
    """All widths and depths in one network; the costs of its options follow from probabilities."""

    def __init__(self, space: ResNetSpace, mixed_op: MakeMixedOp):
        super().__init__()
        self.space: ResNetSpace = space
        self.auxiliary = None
        self.stem = WidthConv(space.input_shape[0], space.widths[0], mixed_op)
        self.stages, c_in = nn.ModuleList(), space.widths[0][-1]
        for s, widths in enumerate(space.widths):
            blocks = []
            for i in range(space.depths[-1]):
                blocks.append(WidthBlock(c_in, widths, mixed_op, strided=s > 0 and i == 0))
                c_in = widths[-1]
            self.stages.append(Stage(blocks, space.depths))
        self.head = pool_linear(c_in, space.classes)
        self.widths: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        assert mixture is not None
        width, depth = mixture.groups[WIDTH], mixture.groups[DEPTH]
        rows = [width.row(r) for r in range(len(width.active))]
        x = F.relu(self.stem(channels_first(x), rows[0]))
        again = self.checkpoint_cells and self.training and torch.is_grad_enabled()
        each = 2 * self.space.depths[-1]
        for s, stage in enumerate(self.stages):
            own = rows[1 + s * each : 1 + (s + 1) * each]
            run = partial(checkpointed, stage) if again else stage
            x = run((x,), own, depth.row(s))
        return self.head(padded(x, self.space.widths[-1][-1]))

    def expected_macs(self, gates: Mapping[str, Tensor]) -> Tensor:
        """The exact mean of `supernets.costs.macs` over final networks whose rows are drawn
        independently; of one-hot gates, the count of that network."""
        like = gates[WIDTH]
        key = like.device, like.dtype
        if key not in self.widths:
            self.widths[key] = widths_of(self.space, like)
        return expected_macs(self.space, gates, self.widths[key])


def widths_of(space: ResNetSpace, like: Tensor) -> list[Tensor]:
    """The widths of each stage as a tensor (O,) of the device and type of another."""
    return [torch.tensor(widths).to(like) for widths in space.widths]


def expected_macs(
    space: ResNetSpace, gates: Mapping[str, Tensor], offered: Sequence[Tensor] | None = None
) -> Tensor:
    """See `SuperResNet.expected_macs`. offered: `widths_of` the space, if they are made already.

    Widths of different rows are independent, so that products of them have products of means. The
    width of a block's output is the largest of those added so far: its distribution function is the
    product of theirs. A stage's output is that of its exits, by their probabilities.
    """
    probabilities, rows = gates[WIDTH], count(1)
    offered = offered or widths_of(space, probabilities)
    (image_channels, H, W), widths = space.input_shape, offered[0]
    below = probabilities[0, : len(widths)].cumsum(0)  # P(width <= each option)
    c_in = _mean(below, widths)
    total = 9 * image_channels * H * W * c_in
    for s in range(STAGES):
        widths, exits = offered[s], []
        chosen = gates[DEPTH][s, : len(space.depths)]
        for i in range(space.depths[-1]):
            strided = s > 0 and i == 0
            H, W = (-(-side // (2 if strided else 1)) for side in (H, W))
            first, second = (probabilities[next(rows), : len(widths)].cumsum(0) for _ in range(2))
            a, b = _mean(first, widths), _mean(second, widths)
            macs = H * W * (9 * (c_in * a + a * b) + (c_in * b if strided else 0))
            cut = sum(depth <= i for depth in space.depths)  # the exits before this block
            total = total + chosen[cut:].sum() * macs
            below = second if strided else below * second
            c_in = _mean(below, widths)
            if i + 1 in space.depths:
                exits.append(below)
        below = chosen @ torch.stack(exits)
        c_in = _mean(below, widths)
    return total + c_in * space.classes


def _mean(below: Tensor, widths: Tensor) -> Tensor:
    """The mean width for P(width <= each option)."""
    return (below.diff(prepend=below.new_zeros(1)) * widths).sum()


class FinalResNet(Network, ResNet):  # type: ignore[misc]  # a pass also takes a mixture
    """A final network with what searching and training add."""

    def __init__(self, space: ResNetSpace, layout: Layout):
        ResNet.__init__(self, layout)
        self.space: ResNetSpace = space
        self.auxiliary = None

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        return ResNet.forward(self, channels_first(x))


class ResNets(Builder):
    """Builds residual networks."""

    def supernet(
        self, space: ResNetSpace, mixed_op: MakeMixedOp, *, affine: bool = True
    ) -> SuperResNet:
        """Batch norms of a supernet have scale and shift, as in the public code."""
        return SuperResNet(space, mixed_op)

    def final(
        self, space: ResNetSpace, architecture: Architecture, *, auxiliary: bool
    ) -> FinalResNet:
        if auxiliary:
            raise ValueError(
                f"auxiliary_weight: expected 0, as space {space.name} has no auxiliary head"
            )
        return FinalResNet(space, layout(space, architecture))

    def blueprint(self, space: ResNetSpace, architecture: Architecture) -> Blueprint:
        return Blueprint(ResNet, layout(space, architecture))


def layout(space: ResNetSpace, architecture: Architecture) -> Layout:
    """An architecture's network as data."""
    kept = architecture.kept(space)
    widths, each = [o for (o,) in kept[WIDTH]], space.depths[-1]
    blocks: list[BlockLayout] = []
    for s in range(STAGES):
        (exit_,) = kept[DEPTH][s]
        for i in range(space.depths[exit_]):
            at = 1 + 2 * (s * each + i)
            a, b = (space.widths[s][o] for o in widths[at : at + 2])
            blocks.append({"widths": (a, b), "strided": s > 0 and i == 0})
    return {
        "image_channels": space.input_shape[0],
        "stem": space.widths[0][widths[0]],
        "blocks": blocks,
        "classes": space.classes,
    }
