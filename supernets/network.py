"""One skeleton (stem, cells, head), two fillings: mixed ops (supernet) or chosen ops (final)."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.cells import Cell, CellSpace, Layer
from search_spaces.ops import FactorizedReduce, ReLUConvBN
from search_spaces.space import Space
from supernets.checkpointing import checkpointed
from supernets.layout import channels_first, channels_last, laid_as
from supernets.mixed_op import Candidate, ChosenOps
from supernets.mixture import GroupMixture, Mixture
from supernets.skeleton import HEADS, STEMS, AuxiliaryHead, ResidualBlock

# (choice, row, c_in, c_out, stride) -> what stands there, None where nothing does
Fill = Callable[[str, int, int, int, int], nn.Module | None]


class Filled(NamedTuple):
    """What stands at one place of a row of a choice; layers that share the choice are places."""

    choice: str
    row: int
    c_in: int
    c_out: int
    stride: int
    module: nn.Module


# (source, its state, mixture) -> what its edges add to their targets: (target, (B, C, H/s, W/s))
FromNode = Callable[[int, Tensor, GroupMixture | None], list[tuple[int, Tensor]]]


class Form(Protocol):
    """How a cell computes: `CellModule.states`, or a faster form of it."""

    def states(
        self, inputs: Sequence[Tensor], mixture: GroupMixture | None
    ) -> Sequence[Tensor]: ...


class CellModule(nn.Module):
    """A cell at one layer: asks each state for what all its outgoing edges contribute.

    forward: inputs (B, C', H', W') each, the group's mixture (None in a final network)
    -> (B, out_nodes * C, H/s, W/s). A `form` may stand in for `states`: see `supernets.forms`.
    """

    form: "Form | None" = None

    def __init__(self, cell: Cell, layer: Layer, preprocess: Sequence[nn.Module], fill: Fill):
        super().__init__()
        assert layer.group is not None
        self.cell, self.channels, self.stride = cell, layer.channels, 2 if layer.reduction else 1
        self.preprocess = nn.ModuleList(preprocess)
        self.edges = nn.ModuleDict()
        for e, edge in enumerate(cell.edges):
            filled = fill(layer.group, e, layer.channels, layer.channels, edge.stride)
            if filled is not None:
                self.edges[edge.name] = filled

    def forward(self, inputs: Sequence[Tensor], mixture: GroupMixture | None) -> Tensor:
        form: Form = self
        if self.form is not None and not inputs[0].is_meta:
            form = self.form
        outputs = form.states(inputs, mixture)
        return torch.cat(list(outputs), 1) if len(outputs) > 1 else outputs[0]

    @property
    def outputs(self) -> range:
        """The states that make up the cell's output, in order."""
        return self.cell.outputs

    def states(self, inputs: Sequence[Tensor], mixture: GroupMixture | None) -> Sequence[Tensor]:
        """The states named by `outputs`, (B, C, H/s, W/s) each."""
        return self.summed(self.preprocessed(inputs), self.from_node, mixture)

    def summed(
        self, states: Sequence[Tensor], from_node: FromNode, mixture: GroupMixture | None
    ) -> Sequence[Tensor]:
        """As `states`, from the first ones, by what `from_node` says that each of them adds."""
        found: list[Tensor | None] = [*states, *[None] * self.cell.nodes]
        for source in range(self.cell.inputs + self.cell.nodes - 1):
            x = found[source]
            if x is None:  # no inputs: it is zero, but the batch norms behind it still shift
                x = self._zeros(states[-1])
            found[source] = x = laid_as(x, states[0])
            for target, y in from_node(source, x, mixture):
                before = found[target]
                found[target] = y if before is None else before + y
        wanted = [found[i] for i in self.outputs]
        return [self._zeros(states[-1]) if y is None else laid_as(y, states[0]) for y in wanted]

    def preprocessed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The cell's inputs as its first states, (B, C, H, W) each."""
        return [pre(x) for pre, x in zip(self.preprocess, inputs, strict=True)]

    def from_node(
        self, source: int, x: Tensor, mixture: GroupMixture | None
    ) -> list[tuple[int, Tensor]]:
        """What the edges out of `source` add to their targets: (target, (B, C, H/s, W/s)) each."""
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
        return y if y is None or mixture.factors is None else mixture.factors[e] * y

    def _zeros(self, x: Tensor) -> Tensor:
        h, w = (-(-side // self.stride) for side in x.shape[2:])
        return x.new_zeros(x.size(0), self.channels, h, w)


class Network(nn.Module):
    """Stem, layers, head. Weights only: gates come with each pass, as a `Mixture` (None in a final
    network).

    forward: (B, C, H, W) -> logits (B, classes). In training a final network with an auxiliary
        head returns
    `(logits, auxiliary logits)`.
    """

    def __init__(self, space: CellSpace, fill: Fill, *, affine: bool, auxiliary: bool = False):
        super().__init__()
        self.space = space
        self.channels_last = False  # lays the images out so on CUDA; layers keep what they get
        self.cells_channels_last = False  # lays cells' inputs out so, where kernels are fast on it
        self.autocast: torch.dtype | None = None  # computes in it where that is safe
        self.checkpoint_cells = False  # less memory, a second forward pass: checkpointing.py
        self.stem, self.stem_second, scale = STEMS[space.stem](
            space.input_shape[0], space.stem_channels
        )
        self.layers = nn.ModuleList()
        self.groups = [layer.group for layer in space.layers]
        c_before, c_last = space.stem_channels, space.stem_channels
        self.auxiliary_after = 2 * len(space.layers) // 3
        self.auxiliary: AuxiliaryHead | None = None
        for i, layer in enumerate(space.layers):
            if layer.cell is None:
                self.layers.append(ResidualBlock(c_last, layer.channels))
                c_before, c_last, scale = c_last, layer.channels, 2
                continue
            cell = space.cells[layer.cell]
            inputs = [(c_before, scale), (c_last, 1)][-cell.inputs :]
            pre = [self._preprocess(c, layer.channels, s, affine) for c, s in inputs]
            self.layers.append(CellModule(cell, layer, pre, fill))
            c_before, c_last = c_last, len(cell.outputs) * layer.channels
            scale = 2 if layer.reduction else 1
            if auxiliary and i == self.auxiliary_after:
                second_norm = space.stem != "imagenet"
                self.auxiliary = AuxiliaryHead(c_last, space.classes, second_norm=second_norm)
        self.head = HEADS[space.head](c_last, space.classes)

    def _preprocess(self, c_in: int, channels: int, scale: int, affine: bool) -> nn.Module:
        if not self.space.preprocess:
            return nn.Identity()
        if scale == 2:
            return FactorizedReduce(c_in, channels, affine=affine)
        return ReLUConvBN(c_in, channels, 1, affine=affine)

    def forward(self, x: Tensor, mixture: Mixture | None = None) -> Tensor | tuple[Tensor, Tensor]:
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

    def rows(self) -> Iterator[Filled]:
        """What stands at every place of every row, in the order of the layers."""
        for layer, group in zip(self.layers, self.groups, strict=True):
            if isinstance(layer, CellModule) and group is not None:
                c = layer.channels
                for e, edge in enumerate(layer.cell.edges):
                    if edge.name in layer.edges:
                        yield Filled(group, e, c, c, edge.stride, layer.edges[edge.name])

    def layers_of(self, choice: str) -> int:
        """How many layers share a choice."""
        return self.groups.count(choice)

    def set_drop_path(self, probability: float) -> None:
        """The chance that an op's output is dropped for an image, from now on (final networks)."""
        for module in self.modules():
            if isinstance(module, ChosenOps):
                module.drop = probability


def build(space: Space, fill: Fill, *, affine: bool, auxiliary: bool = False) -> Network:
    """The network of a space, its rows filled by `fill`."""
    assert isinstance(space, CellSpace)
    return Network(space, fill, affine=affine, auxiliary=auxiliary)


def supernet(space: Space, mixed_op: Callable[..., nn.Module], *, affine: bool = False) -> Network:
    """The network with a mixed op in every row; `mixed_op(candidates, c_in, c_out, stride,
    affine=...)`.

    Raises ValueError where the mixed op does not fit the space (channels not divisible by k).
    """
    choices = space.choices

    def fill(choice: str, r: int, c_in: int, c_out: int, stride: int) -> nn.Module:
        candidates = [space.operations[name] for name in choices[choice].rows[r].names]
        return mixed_op(candidates, c_in, c_out, stride, affine=affine)

    return build(space, fill, affine=affine)


def final_network(space: Space, architecture: Architecture, *, auxiliary: bool = False) -> Network:
    """An architecture's network, untrained. Raises ValueError where it does not fit the space."""
    architecture.check(space)

    kept = architecture.kept(space)

    def fill(choice: str, r: int, c_in: int, c_out: int, stride: int) -> nn.Module | None:
        names = space.choices[choice].rows[r].names
        chosen: list[Candidate] = [space.operations[names[o]] for o in kept[choice][r]]
        return ChosenOps(chosen, c_in, c_out, stride) if chosen else None

    return build(space, fill, affine=space.affine, auxiliary=auxiliary)
