"""One skeleton, two fillings: mixed ops (supernet) or chosen ops (final network).

Both are a `FinalNetwork` with what searching and training add: gates, forms, layouts in memory. The
networks of other families derive from `Network`, too (`supernets.builder`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.cells import Cell, CellSpace
from search_spaces.layers import laid_out
from search_spaces.ops import Zero
from search_spaces.space import Space
from search_spaces.stems import STEMS
from supernets.blueprint import Kept, everything, layout, skeleton, without_zeros
from supernets.builder import Blueprint, Builder, builder_of
from supernets.checkpointing import checkpointed
from supernets.final import (
    ChosenOps,
    FinalCell,
    FinalNetwork,
    PassedOn,
    drops,
)
from supernets.layout import channels_first, channels_last, laid_as
from supernets.mixture import GroupMixture, Mixture
from supernets.skeleton import AuxiliaryHead

Logits = Tensor | tuple[Tensor, Tensor]  # with those of the auxiliary head


class Place(NamedTuple):
    """What stands at one place of a row of a choice; layers that share the choice are places."""

    choice: str
    row: int
    c_in: int
    c_out: int
    stride: int
    module: nn.Module


class Form(Protocol):
    """How a cell computes: `CellModule.states`, or a faster form of it."""

    def states(
        self, inputs: Sequence[Tensor], mixture: GroupMixture | None
    ) -> Sequence[Tensor]: ...


Draw = Callable[[int], Tensor]  # number of images -> a random tensor, one row an image


def drawn_for(images: int, draw: Draw) -> Tensor:
    return draw(images)


class CellModule(FinalCell):
    """A cell whose edges may hold mixed ops, and that may compute in a `form`: `supernets.forms`.

    forward: inputs (B, C', H', W') each, the group's mixture (None in a final network)
    -> (B, out_nodes * C, H/s, W/s). In training a supernet's cell drops the output of an edge for
    single images with probability `drop` and rescales the rest (drop-path; Zela et al. 2020,
    arXiv:1909.09656).
    """

    form: Form | None = None
    drop: float | Tensor = 0.0
    for_images: Callable[[int, Draw], Tensor] = staticmethod(drawn_for)

    def __init__(self, cell: Cell, *parts: Any):
        super().__init__(*parts)
        self.cell = cell

    def forward(self, inputs: Sequence[Tensor], mixture: GroupMixture | None = None) -> Tensor:
        form: Form = self
        if self.form is not None and not inputs[0].is_meta:
            form = self.form
        if mixture is not None and self.training and drops(self.drop):
            mixture = mixture._replace(keep=self.kept(inputs[0]) / (1.0 - self.drop))
        return self.joined(form.states(inputs, mixture))

    def kept(self, x: Tensor) -> Tensor:
        """Which images keep the output of each edge, drawn at each call: (B, E), 0 or 1."""

        def draw(images: int) -> Tensor:
            kept = torch.empty(images, len(self.cell.edges), device=x.device)
            return kept.bernoulli_(1.0 - self.drop)

        return self.for_images(x.size(0), draw)

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
            for e in self.cell.out_of(source)
            if self.cell.edges[e].name in self.edges
        ]
        return [(target, y) for target, y in found if y is not None]

    def from_edge(self, e: int, x: Tensor, mixture: GroupMixture | None) -> Tensor | None:
        """What one edge adds to its target, None where no candidate of it runs."""
        edge = self.edges[self.cell.edges[e].name]
        if mixture is None:
            return edge(x)
        y = edge(x, mixture.gates[e], mixture.active[e])
        if y is None:
            return None
        return dropped(y if mixture.factors is None else mixture.factors[e] * y, e, mixture)


def dropped(y: Tensor, e: int, mixture: GroupMixture) -> Tensor:
    """The output y (B, C, H, W) of an edge after drop-path."""
    keep = mixture.keep
    return y if keep is None else y * keep[:, e, None, None, None].to(y.dtype)


class Network(nn.Module):
    """What networks of all families have in common. Weights only: gates come with each pass, as a
    `Mixture` (None in a final network).

    forward: (B, C, H, W) -> logits (B, classes). In training a final network with an auxiliary head
        returns `(logits, auxiliary logits)`.

    A family derives its class from this one and from its final network in plain torch, and defines
    `logits`. `joint_pass`, if it is set, computes a pass in place of `local`: over several
    processes.
    """

    space: Space
    auxiliary: nn.Module | None
    channels_last = False  # lays the images out so on CUDA; all families keep it
    cells_channels_last = False  # lays cells' inputs out so, where kernels are fast on it
    autocast: torch.dtype | None = None  # computes in it where that is safe
    drop_probability: Tensor | None = None  # of drop-path, where passes may be captured; 0-dim
    checkpoint_cells = False  # less memory, a second forward pass: checkpointing.py
    joint_pass: "Callable[[Network, Tensor, Mixture | None], Logits] | None" = None

    def forward(self, x: Tensor, mixture: Mixture | None = None) -> Logits:
        if self.joint_pass is None or x.is_meta:
            return self.local(x, mixture)
        return self.joint_pass(self, x, mixture)

    def local(self, x: Tensor, mixture: Mixture | None) -> Logits:
        """As `forward`, in this process alone."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.autocast is None:
            return self.logits(x, mixture)
        with torch.autocast(x.device.type, self.autocast):
            found = self.logits(x, mixture)
        return found.float() if isinstance(found, Tensor) else (found[0].float(), found[1].float())

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        """The pass itself."""
        raise NotImplementedError

    def set_drop_path(self, probability: float | Tensor) -> None:
        """Does nothing: a family whose networks can drop paths overrides it."""

    def places(self) -> Iterator[Place]:
        """What stands in every row, layer by layer; nothing where rows are no modules of their
        own."""
        return iter(())

    def layers_of(self, choice: str) -> int:
        """How many layers share a choice."""
        return max(1, sum(place.choice == choice and place.row == 0 for place in self.places()))

    def expected_macs(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Multiply-accumulates for one image, 0-dim and differentiable, if options are drawn by
        these probabilities, choice -> (R, O). For families in which the costs of options do not add
        up (`Space.costs_add_up`). Only the first call per device and type takes numbers to it."""
        raise NotImplementedError


class CellNetwork(Network, FinalNetwork):  # type: ignore[misc]  # a pass also takes a mixture
    """Stem, layers, head."""

    def __init__(
        self,
        space: CellSpace,
        kept: Kept,
        edge: Callable[..., nn.Module],
        *,
        affine: bool,
        auxiliary: bool = False,
    ):
        self.space: CellSpace = space
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
        self.plan = layout(space, kept)
        super().__init__(self.plan, space.operations, **parts, edge=edge, cell=cell)

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        before = self.stem(channels_first(x))
        last = self.stem_second(before)
        auxiliary = None
        for i, (layer, at) in enumerate(zip(self.layers, self.space.layers, strict=True)):
            if isinstance(layer, CellModule):
                if self.cells_channels_last:
                    before, last = channels_last(before, last)
                inputs = (before, last)[-layer.cell.inputs :]
                part = None if mixture is None or at.group is None else mixture.groups[at.group]
                if part is not None and at.row is not None:
                    part = part.row(at.row)
                keep = not (self.checkpoint_cells and self.training and torch.is_grad_enabled())
                y = layer(inputs, part) if keep else checkpointed(layer, inputs, part)
                before, last = last, y
            else:
                before, last = last, layer(channels_first(last))
            if i == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(channels_first(last))
        logits = self.head(last)
        return logits if auxiliary is None else (logits, auxiliary)

    def set_drop_path(self, probability: float | Tensor) -> None:
        """As in a final network; a supernet drops the outputs of whole edges. A captured pass reads
        a probability above 0 from `drop_probability`."""
        if self.drop_probability is not None and probability > 0:
            probability = self.drop_probability.fill_(probability)
        FinalNetwork.set_drop_path(self, probability)
        for layer in self.layers:
            if isinstance(layer, CellModule):
                layer.drop = probability

    def places(self) -> Iterator[Place]:
        """What stands in every row, layer by layer."""
        for cell, layer, plan in zip(
            self.layers, self.space.layers, self.plan["layers"], strict=True
        ):
            if layer.group is None or not isinstance(cell, CellModule):
                continue
            for e, edge in enumerate(cell.cell.edges):
                if edge.name in cell.edges:
                    row = e if layer.row is None else layer.row
                    plain = not self.space.preprocess and edge.source < cell.cell.inputs
                    c_in = plan["inputs"][edge.source][0] if plain else cell.channels
                    module = cell.edges[edge.name]
                    yield Place(layer.group, row, c_in, cell.channels, edge.stride, module)


class Stacks(Builder):
    """Builds stacks of cells."""

    def supernet(
        self, space: CellSpace, mixed_op: Callable[..., nn.Module], *, affine: bool
    ) -> CellNetwork:
        edge = partial(mixed_op, affine=affine)
        return CellNetwork(space, everything(space), edge, affine=affine)

    def final(
        self, space: CellSpace, architecture: Architecture, *, auxiliary: bool
    ) -> CellNetwork:
        kept = without_zeros(space, architecture)
        return CellNetwork(space, kept, ChosenOps, affine=space.affine, auxiliary=auxiliary)

    def blueprint(self, space: CellSpace, architecture: Architecture) -> Blueprint:
        plan = layout(space, without_zeros(space, architecture))
        edges = [names for cell in plan["cells"].values() for names in cell["edges"].values()]
        names = sorted({name for edge in edges for name in edge})
        return Blueprint(FinalNetwork, plan, names, skeleton(space, affine=space.affine))

    def bare(self, space: CellSpace) -> CellNetwork:
        def nothing(ops: Any, *shape: int) -> Zero:
            return Zero(*shape)

        return CellNetwork(space, everything(space), nothing, affine=space.affine)


def supernet(space: Space, mixed_op: Callable[..., nn.Module], *, affine: bool = False) -> Network:
    """The network with a mixed op in every row; `mixed_op(candidates, c_in, c_out, stride,
    affine=...)`.

    Raises ValueError where the mixed op does not fit the space (channels not divisible by k).
    """
    return builder_of(space).supernet(space, mixed_op, affine=affine)


def final_network(space: Space, architecture: Architecture, *, auxiliary: bool = False) -> Network:
    """An architecture's network, untrained; cells of a shallower one are repeated (`laid_out`).

    Raises ValueError where it does not fit the space.
    """
    architecture = laid_out(architecture, space)
    architecture.check(space)
    return builder_of(space).final(space, architecture, auxiliary=auxiliary)


def started(space: Space, architecture: Architecture, *, auxiliary: bool = False) -> Network:
    """The network that a training starts from: `final_network`, with the trained weights of a space
    that has some. Raises ValueError as that, and for weights that are missing."""
    net = final_network(space, architecture, auxiliary=auxiliary)
    if space.trained:
        net.load_state_dict(builder_of(space).inherited(space, architecture))
    return net


def bare(space: Space) -> Network:
    """A final network with zeros in all rows: its fixed parts, on the default device.

    Raises ValueError as `check_costs`.
    """
    check_costs(space)
    return builder_of(space).bare(space)


def check_costs(space: Space) -> None:
    """Raises ValueError where an option has no cost of its own."""
    if not space.costs_add_up:
        raise ValueError(
            f"costs of options do not add up in space {space.name}, so that single ones cannot be "
            "measured or counted; choose another space"
        )
