"""One skeleton, two fillings: mixed ops (supernet) or chosen ops (final network).

Both are a `FinalNetwork` with what searching and training add: gates, forms, layouts in memory.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.space import Cell, Space
from search_spaces.stems import STEMS
from supernets.checkpointing import checkpointed
from supernets.final import (
    CellLayout,
    ChosenOps,
    FinalCell,
    FinalNetwork,
    LayerLayout,
    Layout,
    PassedOn,
)
from supernets.layout import channels_first, channels_last, laid_as
from supernets.mixture import GroupMixture, Mixture
from supernets.skeleton import HEADS, AuxiliaryHead, ResidualBlock, fit_input

Names = Mapping[str, Mapping[str, Sequence[str]]]  # group -> edge -> operations


class Form(Protocol):
    """How a cell computes: `CellModule.states`, or a faster form of it."""

    def states(
        self, inputs: Sequence[Tensor], mixture: GroupMixture | None
    ) -> Sequence[Tensor]: ...


class CellModule(FinalCell):
    """A cell whose edges may hold mixed ops, and that may compute in a `form`: `supernets.forms`.

    forward: inputs (B, C', H', W') each, the group's mixture (None in a final network)
    -> (B, out_nodes * C, H/s, W/s).
    """

    form: Form | None = None

    def __init__(self, cell: Cell, *parts: Any):
        super().__init__(*parts)
        self.cell = cell

    def forward(self, inputs: Sequence[Tensor], mixture: GroupMixture | None = None) -> Tensor:
        form: Form = self
        if self.form is not None and not inputs[0].is_meta:
            form = self.form
        return self.joined(form.states(inputs, mixture))

    def states(self, inputs: Sequence[Tensor], mixture: GroupMixture | None) -> Sequence[Tensor]:
        """The states named by `outputs`, (B, C, H/s, W/s) each."""
        return self.summed(self.preprocessed(inputs), partial(self.from_node, mixture=mixture))

    def summed(self, states: Sequence[Tensor], passed_on: PassedOn) -> list[Tensor]:
        """As `FinalCell.summed`; on a GPU all states have the first one's layout in memory."""

        def from_laid(source: int, x: Tensor) -> Iterable[tuple[int, Tensor]]:
            return passed_on(source, laid_as(x, states[0]))

        return [laid_as(y, states[0]) for y in super().summed(states, from_laid)]

    def from_node(
        self, source: int, x: Tensor, mixture: GroupMixture | None
    ) -> list[tuple[int, Tensor]]:
        """As `passed_on`, under a mixture."""
        found = [
            (self.cell.edges[e].target, self.from_edge(e, x, mixture))
            for e in self.cell.outgoing(source)
            if self.cell.edges[e].name in self.edges
        ]
        return [(target, y) for target, y in found if y is not None]

    def from_edge(self, e: int, x: Tensor, mixture: GroupMixture | None) -> Tensor | None:
        """What one edge adds to its target, None where no candidate of it runs."""
        edge = self.edges[self.cell.edges[e].name]
        if mixture is None:
            return edge(x)
        y = edge(x, mixture.gates[e], mixture.active[e])
        return y if y is None or mixture.factors is None else mixture.factors[e] * y


class Network(FinalNetwork):
    """Stem, layers, head. Weights only: gates come with each pass, as a `Mixture` (None in a final
    network).

    forward: (B, C, H, W) -> logits (B, classes). In training a final network with an auxiliary head
        returns `(logits, auxiliary logits)`.
    """

    def __init__(
        self,
        space: Space,
        names: Names,
        edge: Callable[..., nn.Module],
        *,
        affine: bool,
        auxiliary: bool = False,
    ):
        self.space = space
        self.channels_last = False  # lays the images out so on CUDA; layers keep what they get
        self.cells_channels_last = False  # lays cells' inputs out so, where kernels are fast on it
        self.autocast: torch.dtype | None = None  # computes in it where that is safe
        self.checkpoint_cells = False  # less memory, a second forward pass: checkpointing.py
        self.groups = [layer.group for layer in space.layers]
        self.auxiliary_after = 2 * len(space.layers) // 3
        self.auxiliary: AuxiliaryHead | None = None

        def cell(*parts: Any) -> CellModule:
            kind = space.layers[len(self.layers)].cell
            assert kind is not None
            made = CellModule(space.cells[kind], *parts)
            if auxiliary and len(self.layers) == self.auxiliary_after:
                channels, norm = len(made.outputs) * made.channels, STEMS[space.stem].second_norm
                self.auxiliary = AuxiliaryHead(channels, space.classes, second_norm=norm)
            return made

        parts = skeleton(space, affine=affine)
        super().__init__(layout(space, names), space.operations, **parts, edge=edge, cell=cell)

    def forward(  # type: ignore[override]
        self, x: Tensor, mixture: Mixture | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        if self.autocast is None:
            return self._logits(x, mixture)
        with torch.autocast(x.device.type, self.autocast):
            found = self._logits(x, mixture)
        return found.float() if isinstance(found, Tensor) else (found[0].float(), found[1].float())

    def _logits(self, x: Tensor, mixture: Mixture | None) -> Tensor | tuple[Tensor, Tensor]:
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        before = self.stem(channels_first(x))
        last = self.stem_second(before)
        auxiliary = None
        for i, (layer, group) in enumerate(zip(self.layers, self.groups, strict=True)):
            if isinstance(layer, CellModule):
                if self.cells_channels_last:
                    before, last = channels_last(before, last)
                inputs = (before, last)[-layer.cell.inputs :]
                part = None if mixture is None or group is None else mixture.groups[group]
                keep = not (self.checkpoint_cells and self.training and torch.is_grad_enabled())
                y = layer(inputs, part) if keep else checkpointed(layer, inputs, part)
                before, last = last, y
            else:
                before, last = last, layer(channels_first(last))
            if i == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(channels_first(last))
        logits = self.head(last)
        return logits if auxiliary is None else (logits, auxiliary)


def skeleton(space: Space, *, affine: bool) -> dict[str, Callable[..., Any]]:
    """The constructors of a network's fixed parts, as `FinalNetwork` takes them.

    Args:
        affine: whether the batch norms before cells have scale and shift.
    """
    parts: dict[str, Callable[..., Any]] = {"stem": STEMS[space.stem].build}
    if space.preprocess:
        parts["preprocess"] = partial(fit_input, affine=affine)
    if any(layer.cell is None for layer in space.layers):
        parts["block"] = ResidualBlock
    return parts | {"head": HEADS[space.head]}


def layout(space: Space, names: Names) -> Layout:
    """A space's network as data, with these operations on the edges of each group."""
    before, last = (space.stem_channels, STEMS[space.stem].second_stride), (space.stem_channels, 1)
    layers: list[LayerLayout] = []
    for layer in space.layers:
        cell = space.cells[layer.cell] if layer.cell else None
        inputs = [before, last][-cell.inputs :] if cell else [last]
        stride = 2 if layer.reduction else 1
        layers.append(
            {"cell": layer.group, "inputs": inputs, "channels": layer.channels, "stride": stride}
        )
        before = last[0], stride
        last = (cell.out_nodes if cell else 1) * layer.channels, 1
    return {
        "image_channels": space.input_shape[0],
        "stem_channels": space.stem_channels,
        "cells": {group: cell_layout(cell, names[group]) for group, cell in space.groups.items()},
        "layers": layers,
        "head_channels": last[0],
        "classes": space.classes,
    }


def cell_layout(cell: Cell, names: Mapping[str, Sequence[str]]) -> CellLayout:
    """A cell with these operations on its edges."""
    kept = [edge for edge in cell.edges if names.get(edge.name)]
    states = range(cell.inputs + cell.nodes)
    return {
        "edges": {edge.name: list(names[edge.name]) for edge in kept},
        "strided": [edge.name for edge in kept if edge.strided],
        "outputs": list(states[cell.inputs :] if cell.output == "concat" else states[-1:]),
    }


def supernet(space: Space, mixed_op: Callable[..., nn.Module], *, affine: bool = False) -> Network:
    """The network with a mixed op on every edge; `mixed_op(candidates, channels, stride,
    affine=...)`.

    Raises ValueError where the mixed op does not fit the space (channels not divisible by k).
    """
    names = {
        group: {edge.name: edge.candidates for edge in cell.edges}
        for group, cell in space.groups.items()
    }
    return Network(space, names, partial(mixed_op, affine=affine), affine=affine)


def final_network(space: Space, architecture: Architecture, *, auxiliary: bool = False) -> Network:
    """An architecture's network, untrained. Raises ValueError where it does not fit the space."""
    architecture.check(space)
    names = without_none(architecture)
    return Network(space, names, ChosenOps, affine=space.affine, auxiliary=auxiliary)


def without_none(architecture: Architecture) -> Names:
    """The operations on the edges of each group."""
    return {
        group: {edge: [name for name in kept if name != "none"] for edge, kept in edges.items()}
        for group, edges in architecture.choices.items()
    }
