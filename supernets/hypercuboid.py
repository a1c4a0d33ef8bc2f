"""Grids of widths and operations: the supernet and the final network of a hypercuboid.

Source: Hundt et al. 2019, arXiv:1903.09900, and the MultiChannelNet of its public code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.choice import Option
from search_spaces.hypercuboid import LAYERS, HypercuboidSpace
from search_spaces.ops import SharpSepConv
from supernets.builder import Blueprint, Builder
from supernets.checkpointing import checkpointed
from supernets.layout import channels_first
from supernets.mixture import GroupMixture, Mixture
from supernets.network import Logits, Network
from supernets.skeleton import pool_linear
from supernets.width_chain import Layout, StepLayout, WidthChain, conv_stem

MakeMixedOp = Callable[..., nn.Module]
Maps = list[Tensor | None]  # of each width; None where nothing arrives


class GridLayer(nn.Module):
    """All operations between all widths: maps of each width, a row of a mixture -> maps.

    A map is the sum of what arrives from every width: sum_{i, o} g_{i, j, o} op_{i, j, o}(x_i).
    """

    def __init__(self, space: HypercuboidSpace, stride: int, make: MakeMixedOp):
        super().__init__()
        ops = [space.operations[name] for name in space.candidates]
        self.each = len(ops)  # options between two widths
        self.mixed = nn.ModuleList(
            nn.ModuleList(make(ops, c_in, c_out, stride) for c_out in space.widths)
            for c_in in space.widths
        )

    def forward(self, inputs: Maps, row: GroupMixture) -> Maps:
        outputs: Maps = [None] * len(inputs)
        for i, j, mixed, gates, active in self.parts(row.gates[0], row.active[0]):
            x, before = inputs[i], outputs[j]
            y = None if x is None or not active else mixed(x, gates, active)
            if y is not None:
                y = y if row.factors is None else row.factors[0] * y
                outputs[j] = y if before is None else before + y
        return outputs

    def parts(
        self, gates: Tensor, active: Sequence[int]
    ) -> Iterator[tuple[int, int, nn.Module, Tensor, list[int]]]:
        """Both widths, their mixed op, and its part of gates (O,) and options that run."""
        first = 0
        for i, column in enumerate(self.mixed):
            for j, mixed in enumerate(column.children()):
                own = [o - first for o in active if 0 <= o - first < self.each]
                yield i, j, mixed, gates[first : first + self.each], own
                first += self.each


class Hypercuboid(Network):
    """Stems of all widths, the grid, blocks that bring all widths to one, the head."""

    def __init__(self, space: HypercuboidSpace, mixed_op: MakeMixedOp, *, affine: bool):
        super().__init__()
        self.space: HypercuboidSpace = space
        self.auxiliary = None
        self.tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # see `counted`
        check_widths(space)
        make, C = partial(mixed_op, affine=affine), space.input_shape[0]
        self.stems = nn.ModuleList(conv_stem(C, width) for width in space.widths)
        self.layers = nn.ModuleList(
            GridLayer(space, space.stride(i), make) for i in range(len(space.grid.rows))
        )
        end = partial(SharpSepConv, kernel_size=3, affine=affine, search=True)
        self.ends = nn.ModuleList(end(width, space.head_channels, 1) for width in space.widths)
        self.head = pool_linear(space.head_channels, space.classes)

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        assert mixture is not None
        x, group = channels_first(x), mixture.groups[LAYERS]
        again = self.checkpoint_cells and self.training and torch.is_grad_enabled()
        maps: Maps = [stem(x) for stem in self.stems]
        for i, layer in enumerate(self.layers):
            run: Callable[..., Any] = partial(checkpointed, layer) if again else layer
            maps = run(maps, group.row(i))
        arrived = [end(y) for end, y in zip(self.ends, maps, strict=True) if y is not None]
        if not arrived:  # drawn options do not fit each other
            arrived = [x.new_zeros(x.size(0), self.space.head_channels, 1, 1)]
        return self.head(torch.stack(arrived).sum(0))

    def expected_macs(self, gates: Mapping[str, Tensor]) -> Tensor:
        """The mean over options drawn independently; of one-hot gates that form a path, the count
        of its network. A stem counts with the first option, a last block with the last one."""
        given = gates[LAYERS]
        key = given.device, given.dtype
        if key not in self.tables:
            self.tables[key] = self.counted().to(given)
        fixed = self.space.head_channels * self.space.classes
        return (given * self.tables[key]).sum() + fixed

    def counted(self) -> Tensor:
        """Multiply-accumulates of each option, (R, O) int64, for one image."""
        from supernets.costs import macs_of  # which imports networks

        C, H, W = self.space.input_shape
        N, rows = len(self.space.widths), list[list[int]]()
        stems = [macs_of(stem, (torch.empty(1, C, H, W, device="meta"),)) for stem in self.stems]
        gates = torch.empty(self.space.grid.width, device="meta")
        for layer in self.layers:
            rows.append([])
            for i, _, mixed, part, own in cast(GridLayer, layer).parts(gates, range(len(gates))):
                x = torch.empty(1, self.space.widths[i], H, W, device="meta")
                rows[-1] += [macs_of(mixed, (x, part, [o])) for o in own]
            H, W = (-(-side // self.space.stride(len(rows) - 1)) for side in (H, W))
        ends = [
            macs_of(end, (torch.empty(1, width, H, W, device="meta"),))
            for end, width in zip(self.ends, self.space.widths, strict=True)
        ]
        found = torch.tensor(rows).view(len(rows), N, N, -1)
        found[0] += torch.tensor(stems)[:, None, None]
        found[-1] += torch.tensor(ends)[None, :, None]
        return found.flatten(1)


def check_widths(space: HypercuboidSpace) -> None:
    """Raises ValueError for a candidate that cannot change the number of channels alone."""
    with torch.device("meta"):
        for name in space.candidates:
            build = space.operations[name]
            found = tuple(build(1, 2, 1, affine=True, search=True)(torch.empty(2, 1, 4, 4)).shape)
            if found != (2, 2, 4, 4):
                raise ValueError(
                    f"candidates: '{name}' turns 1 map of 4x4 into {found[1]} of {found[2]}x"
                    f"{found[3]}, expected 2 of 4x4; leave it out"
                )


class FinalChain(Network, WidthChain):  # type: ignore[misc]
    """A final network with what searching and training add."""

    def __init__(self, space: HypercuboidSpace, layout: Layout):
        WidthChain.__init__(self, layout, space.operations)
        self.space: HypercuboidSpace = space
        self.auxiliary = None

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        return WidthChain.forward(self, channels_first(x))


class Hypercuboids(Builder):
    """Builds hypercuboids and the chains of widths found in them."""

    def supernet(
        self, space: HypercuboidSpace, mixed_op: MakeMixedOp, *, affine: bool
    ) -> Hypercuboid:
        return Hypercuboid(space, mixed_op, affine=affine)

    def final(
        self, space: HypercuboidSpace, architecture: Architecture, *, auxiliary: bool
    ) -> FinalChain:
        if auxiliary:
            raise ValueError(
                f"auxiliary_weight: space {space.name} has no auxiliary head; set it to 0"
            )
        return FinalChain(space, layout(space, architecture))

    def blueprint(self, space: HypercuboidSpace, architecture: Architecture) -> Blueprint:
        plan = layout(space, architecture)
        names = sorted({step["operation"] for step in plan["steps"]})
        return Blueprint(WidthChain, plan, names)


def layout(space: HypercuboidSpace, architecture: Architecture) -> Layout:
    """An architecture's network as data. Raises ValueError for options that do not fit."""
    steps: list[StepLayout] = []
    before: Option | None = None
    rows = zip(space.grid.rows, architecture.kept(space)[LAYERS], strict=True)
    for i, (row, (kept,)) in enumerate(rows):
        option = row.options[kept]
        if before is not None and not option.follows(before):
            raise ValueError(
                f"'{LAYERS}' keeps '{option.name}' in row {row.name} behind '{before.name}', which "
                "ends at another width; set strategy/discretisation=strongest"
            )
        c_in, c_out = (space.settings["channels"] * m for m in (option.begin, option.end))
        operation = option.name.split()[0]
        steps.append({"operation": operation, "channels": (c_in, c_out), "stride": space.stride(i)})
        before = option
    return {
        "image_channels": space.input_shape[0],
        "steps": steps,
        "head_channels": space.head_channels,
        "classes": space.classes,
    }
