"""What each option adds to the costs of a final network: they add up, exactly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.costs import inputs, macs, macs_of, parameters
from supernets.final import ChosenOps
from supernets.network import bare


@dataclass(frozen=True)
class Cost:
    """A cost of final networks: that of the fixed parts, and choice -> (R, O) of each option."""

    fixed: float
    tables: Mapping[str, Tensor]

    def of(self, architecture: Architecture, space: Space) -> float:
        """The cost of an architecture's network."""
        return self.fixed + total(architecture, space, self.tables)


def total(architecture: Architecture, space: Space, tables: Mapping[str, Tensor]) -> float:
    """The sum over what an architecture keeps. tables: choice -> (R, O)."""
    return sum(
        float(tables[name][r, o])
        for name, rows in architecture.kept(space).items()
        for r, kept in enumerate(rows)
        for o in kept
    )


class Site(NamedTuple):
    """An option where it stands in a final network; equal places cost the same."""

    option: str
    c_in: int
    c_out: int
    stride: int
    height: int  # of the map it gets
    width: int


def cost_tables(space: Space, cost: Callable[[Site], float]) -> dict[str, Tensor]:
    """Choice -> (R, O): costs of the options that are not zeros, summed over the layers that share
    the choice; asked once for equal places."""
    choices = space.choices
    tables = {n: torch.zeros(len(c.rows), c.width, dtype=torch.double) for n, c in choices.items()}
    known: dict[Site, float] = {}
    with torch.device("meta"):
        places = inputs(bare(space), None)
    for filled, (_, _, *size) in places:
        for o, option in enumerate(choices[filled.choice].rows[filled.row].options):
            if option.kind != "zero":
                place = Site(option.name, filled.c_in, filled.c_out, filled.stride, *size)
                if place not in known:
                    known[place] = cost(place)
                tables[filled.choice][filled.row, o] += known[place]
    return tables


def op_at(space: Space, place: Site) -> ChosenOps:
    """What stands at a place of a final network, on the default device."""
    op = space.operations[place.option]
    return ChosenOps([op], place.c_in, place.c_out, place.stride)


def final_costs(space: Space) -> dict[str, Cost]:
    """`params`, as `costs.parameters` counts them, and `macs`, as `costs.macs` does."""
    meta = torch.device("meta")

    def parameters_at(place: Site) -> float:
        with meta:
            return parameters(op_at(space, place))

    def macs_at(place: Site) -> float:
        with meta:
            image = torch.empty(1, place.c_in, place.height, place.width)
            return macs_of(op_at(space, place), (image,))

    with meta:
        fixed = bare(space)
    return {
        "params": Cost(parameters(fixed), cost_tables(space, parameters_at)),
        "macs": Cost(macs(fixed), cost_tables(space, macs_at)),
    }
