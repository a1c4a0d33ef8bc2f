"""The native form of a final network's cell: own CPU kernels for the operations they know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from supernets.chains import Chain, chain_of
from supernets.final import ChosenOps
from supernets.layout import channels_first
from supernets.mixture import GroupMixture
from supernets.native.build import library
from supernets.native.cell import NativeCell, alone, native
from supernets.native.kinds import kind_of
from supernets.native.plan import Plan, Step
from supernets.native.source import Source
from supernets.network import CellModule

Place = tuple[int, int]  # an edge, and where the operation stands on it


@dataclass(frozen=True)
class Alike:
    """Operations of one kind on the edges out of one source, and the kernel that runs them."""

    places: Sequence[Place]
    source: Source

    def keep(self, x: Tensor, keeps: Mapping[Place, Tensor | None]) -> Tensor | None:
        """What drop-path keeps of each operation, (B, places), from (B, 1, 1, 1) each."""
        own = [keeps[place] for place in self.places]
        if all(keep is None for keep in own):
            return None
        ones = x.new_ones(x.size(0))
        return torch.stack([ones if keep is None else keep.flatten() for keep in own], 1)


@dataclass(frozen=True)
class Outgoing:
    """What leaves one source: what the kernels run of it, and what not."""

    edges: list[tuple[int, nn.Module]]  # in the reference's order
    bundles: list[Alike] = field(default_factory=list)
    owned: set[Place] = field(default_factory=set)  # what the bundles run


class NativeFinal:
    """A `Form` of a final network's cell: operations of one kind out of one source run together.

    What the kernels do not know runs in torch, on maps with channels first. Drop-path draws as the
    reference does, number for number.
    """

    def __init__(self, cell: CellModule):
        self.module = cell
        self._inputs = NativeCell(cell, keeps=True)  # a supernet's takes them the same way

    def __deepcopy__(self, memo: dict[int, Any]) -> "NativeFinal":
        return type(self)(memo[id(self.module)])  # a form is copied with its cell

    @cached_property
    def sources(self) -> list[Outgoing]:
        """By the state that is read."""
        cell = self.module.cell
        return [of_source(self.module, i) for i in range(cell.inputs + cell.nodes - 1)]

    @cached_property
    def whole(self) -> Plan | None:
        """The plan for the cell, None where something in it runs in torch."""
        cell, steps = self.module.cell, []
        for state, found in enumerate(self.sources):
            places = [(e, o) for e, edge in found.edges for o in range(operations(edge))]
            if set(places) != found.owned or any(not operations(edge) for _, edge in found.edges):
                return None
            for alike in found.bundles:
                targets = [cell.edges[e].target for e, _ in alike.places]
                steps.append(Step(alike.source, state, targets))
        if {target for step in steps for target in step.targets} != set(cell.targets):
            return None
        return Plan(steps, cell.inputs, self.module.outputs)

    def states(self, inputs: Sequence[Tensor], mixture: GroupMixture | None) -> Sequence[Tensor]:
        """As `CellModule.states`."""
        found = self.preprocessed(inputs)
        if self.whole is None or not all(native(x, 2) for x in found):
            return self.module.summed(found, partial(self.from_node, mixture=mixture))
        keeps = []
        for source in self.sources:
            drawn = drop_path(source, found[0])
            keeps += [alike.keep(found[0], drawn) for alike in source.bundles]
        return self.whole(found, torch.ones(sum(self.whole.gates)), None, keeps)

    def preprocessed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return self._inputs.preprocessed(inputs)

    def from_node(
        self, source: int, x: Tensor, mixture: GroupMixture | None
    ) -> list[tuple[int, Tensor]]:
        """As `CellModule.from_node`."""
        if not native(x, 2):
            return self.module.from_node(source, channels_first(x), mixture)
        known = self.sources[source]
        found: dict[Place, Tensor] = {}
        keeps: dict[Place, Tensor | None] = {}
        for e, edge in known.edges:
            if not isinstance(edge, ChosenOps):
                found[e, 0] = edge(channels_first(x))
                continue
            for o, op in enumerate(edge.ops):
                y = None if (e, o) in known.owned else op(channels_first(x))
                keeps[e, o] = keep = edge.keep(op, x)
                if y is not None:
                    found[e, o] = y if keep is None else y * keep
        for alike in known.bundles:
            plan, keep = alone(alike.source), alike.keep(x, keeps)
            values = plan([x], torch.ones(len(alike.places)), None, [keep])
            found |= zip(alike.places, values, strict=True)
        return [(self.module.cell.edges[e].target, found[e, o]) for e, o in sorted(found)]


def operations(edge: nn.Module) -> int:
    """How many stand on an edge; 0 for what is not made of them."""
    return len(edge.ops) if isinstance(edge, ChosenOps) else 0


def drop_path(source: Outgoing, x: Tensor) -> dict[Place, Tensor | None]:
    """What each operation's output is multiplied by, drawn in the reference's order."""
    return {
        (e, o): edge.keep(op, x)
        for e, edge in source.edges
        if isinstance(edge, ChosenOps)
        for o, op in enumerate(edge.ops)
    }


def of_source(cell: CellModule, source: int) -> Outgoing:
    """Operations whose layers have the same settings form a bundle, if the kernels know them. The
    edges of a bundle lead to different targets."""
    names = [(e, cell.cell.edges[e].name) for e in cell.cell.out_of(source)]
    found = Outgoing([(e, cell.edges[name]) for e, name in names if name in cell.edges])
    groups: dict[tuple[Any, ...], dict[int, tuple[Place, Chain]]] = {}
    for e, edge in found.edges:
        strided, target = cell.cell.edges[e].strided, cell.cell.edges[e].target
        for o, op in enumerate(edge.ops if isinstance(edge, ChosenOps) else ()):
            layers = chain_of(op)
            if layers is not None:
                settings = [repr(layer) for layer in layers]
                keys = ((n, strided, *settings) for n in count())
                members = next(m for k in keys if target not in (m := groups.setdefault(k, {})))
                members[target] = (e, o), layers
    kernels = library()
    for (_, strided, *_), members in groups.items():
        places, chains = zip(*members.values(), strict=True)
        stride = 2 if strided else 1
        kind = kind_of(chains, stride)
        if kernels is None or kind is None:
            continue
        run = Source(kernels, [kind], len(places), stride=stride, k=1, keeps=True)
        found.bundles.append(Alike(places, run))
        found.owned.update(places)
    return found
