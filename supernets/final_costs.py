"""What each candidate adds to the costs of a final network: they add up, exactly."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.costs import macs, macs_of, parameters
from supernets.final import ChosenOps
from supernets.network import CellModule, Network, final_network


@dataclass(frozen=True)
class Cost:
    """A cost of final networks: that of the fixed parts, and group -> (E, O) of each candidate."""

    fixed: float
    tables: Mapping[str, Tensor]

    def of(self, architecture: Architecture, space: Space) -> float:
        """The cost of an architecture's network."""
        return self.fixed + total(architecture, space, self.tables)


def total(architecture: Architecture, space: Space, tables: Mapping[str, Tensor]) -> float:
    """The sum over what an architecture keeps. tables: group -> (E, O)."""
    return sum(
        float(tables[name][e, edge.candidates.index(candidate)])
        for name, cell in space.groups.items()
        for e, edge in enumerate(cell.edges)
        for candidate in architecture.choices[name].get(edge.name, ())
    )


class Place(NamedTuple):
    """A candidate where it stands in a final network; equal places cost the same."""

    candidate: str
    channels: int
    stride: int
    height: int  # of the map it gets
    width: int


def bare(space: Space) -> Network:
    """A final network without any edge: its fixed parts, on the default device."""
    return final_network(space, Architecture.of(space, {name: {} for name in space.groups}))


def places(space: Space) -> Iterator[tuple[str, int, int, Place]]:
    """Group, edge, candidate and place of all but `none`, layer by layer."""
    with torch.device("meta"):
        net, image = bare(space).eval(), torch.empty(1, *space.input_shape)
    maps: dict[nn.Module, tuple[int, int]] = {}

    def note(cell: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maps[cell] = (output.size(2), output.size(3))

    cells = [
        (group, layer)
        for group, layer in zip(net.groups, net.layers, strict=True)
        if group is not None and isinstance(layer, CellModule)
    ]
    for _, layer in cells:
        layer.preprocess[-1].register_forward_hook(note)
    net(image)
    for group, layer in cells:
        first = maps[layer.preprocess[-1]]
        later = tuple(-(-side // layer.stride) for side in first)
        for e, edge in enumerate(layer.cell.edges):
            size = first if edge.source < layer.cell.inputs else later
            for o, name in enumerate(edge.candidates):
                if name != "none":
                    stride = 2 if edge.strided else 1
                    yield group, e, o, Place(name, layer.channels, stride, *size)


def op_at(space: Space, place: Place) -> ChosenOps:
    """What stands at a place of a final network, on the default device."""
    return ChosenOps([space.operations[place.candidate]], place.channels, place.stride)


def summed(
    space: Space, found: Iterable[tuple[str, int, int, Place]], cost: Callable[[Place], float]
) -> dict[str, Tensor]:
    """Group -> (E, O): costs summed over the `places` found, asked once for equal ones."""
    tables = {
        name: torch.zeros(len(cell.edges), cell.width, dtype=torch.double)
        for name, cell in space.groups.items()
    }
    known: dict[Place, float] = {}
    for group, e, o, place in found:
        if place not in known:
            known[place] = cost(place)
        tables[group][e, o] += known[place]
    return tables


def final_costs(space: Space) -> dict[str, Cost]:
    """`params`, as `costs.parameters` counts them, and `macs`, as `costs.macs` does."""
    meta = torch.device("meta")

    def parameters_at(place: Place) -> float:
        with meta:
            return parameters(op_at(space, place))

    def macs_at(place: Place) -> float:
        with meta:
            image = torch.empty(1, place.channels, place.height, place.width)
            return macs_of(op_at(space, place), (image,))

    with meta:
        fixed = bare(space)
    found = list(places(space))
    return {
        "params": Cost(parameters(fixed), summed(space, found, parameters_at)),
        "macs": Cost(macs(fixed), summed(space, found, macs_at)),
    }
