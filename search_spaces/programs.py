"""The family of spaces that are programs of `search_spaces.language`.

A program has one choice, `program`: a row for each hyper-parameter, in order of the program, with
its values as options. A network reads only the rows that its decisions leave in the program; the
others are there so that all architectures of a space have the same rows, and change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any

from search_spaces.architecture import DROPPED
from search_spaces.choice import Choice, Kept, Option, Row
from search_spaces.decisions import Decisions, traverse
from search_spaces.diagrams import Diagram
from search_spaces.language import (
    Hyperparameter,
    Module,
    dependent,
    hyperparameter,
    layer,
    maybe_swap,
    optional,
    or_,
    repeat,
    repeat_tied,
    residual,
    sequence,
)
from search_spaces.settings import Count, OpenShare, Range
from search_spaces.space import MOST_LAYERS, Channels, Space, family

PROGRAM = "program"  # the name of the choice


@dataclass(frozen=True)
class Decision(Row):
    """A hyper-parameter."""

    label: str

    @property
    def name(self) -> str:
        return self.label


@dataclass(frozen=True)
class Program(Choice):
    """The hyper-parameters of a module; every row keeps one value."""

    module: Module
    keep = 1
    inputs = 1
    whole = True
    single = True

    @cached_property
    def rows(self) -> tuple[Decision, ...]:
        found = self.module.hyperparameters.items()
        return tuple(
            Decision(i, i + 1, tuple(Option(str(value)) for value in values), name)
            for i, (name, values) in enumerate(found)
        )

    @property
    def outputs(self) -> tuple[int, ...]:
        return (len(self.rows),)

    def model(self, kept: Kept) -> tuple[Module, Decisions]:
        """The model of kept options, and its decisions: those that the model has."""

        def choose(asked: Hyperparameter, *_: Any) -> int:
            return list(map(str, asked.values)).index(kept[asked.name][0])

        return traverse(self.module, choose)

    def drawn(self, kept: Kept) -> tuple[Choice, Kept]:
        """The network itself, without what the rows say that it does not have."""
        diagram = Diagram.of(self.model(kept)[0])
        return diagram, diagram.kept

    def kept(self, decisions: Decisions) -> dict[str, tuple[str, ...]]:
        """The options that these decisions keep; rows that their model does not have keep the
        first one, so equal models have equal rows."""
        chosen = dict(decisions)
        return {row.name: (row.names[chosen.get(row.name, 0)],) for row in self.rows}


@dataclass(frozen=True, kw_only=True)
class ProgramSpace(Space):
    """A program between stem and head; there is no supernet of it."""

    program: Program
    only_way = True
    has_supernet = False
    costs_add_up = False
    builder = "supernets.programs:Programs"

    @property
    def choices(self) -> dict[str, Choice]:
        return {PROGRAM: self.program}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(self.family, **self.settings), ()  # functions of a program have no names


def program_space(module: Module, *, channels: int, **common: Any) -> ProgramSpace:
    """The space of a module between a 3x3 convolution and a pooled linear layer.

    channels: of the first convolution. common: as a function gets it that `family` decorates.

    Raises ValueError for a module without a decision, a value `none`, or operations of the user's
    own.
    """
    if common["extra_operations"]:
        raise ValueError(f"operations: space {common['name']} is a program; expected {{}}")
    program = Program(module)
    if not program.rows:
        raise ValueError(f"space {common['name']}: expected a program with a choice, found none")
    for row in program.rows:
        if set(DROPPED) & set(row.names):
            raise ValueError(
                f"space {common['name']}: '{row.name}' has a value 'none', which means in a file "
                "that nothing is kept; choose another name"
            )
    values = {option.name for row in program.rows for option in row.options}
    return ProgramSpace(
        program=program,
        stem="plain",
        stem_channels=channels,
        head="pool_linear",
        **common | {"operations": dict.fromkeys(values, Module)},  # options are values here
    )


@family("modular", {})
def modular(
    *,
    layers: Annotated[int, Range(ge=1, le=MOST_LAYERS)],
    channels: Channels,
    widths: Sequence[Annotated[float, Range(gt=0, le=1000)]],
    kernels: Sequence[Count],
    rates: Sequence[OpenShare],
    units: Sequence[Count],
    **common: Any,
) -> ProgramSpace:
    """A space of convolutional networks of modules.

    Every layer is one of three modules: units of convolutions, a residual of such units, or a
    pooling that halves the resolution. A unit is a convolution, a ReLU, optionally a batch norm
    before or after it, and optionally dropout.

    Source of the form: Negrinho & Gordon 2017, arXiv:1704.08792, by its public code, which has
    modules of the same kinds; the composition and all sizes are our own. Not as there: settings of
    the training are no part of the space, as one recipe trains all architectures.

    Args:
        layers: modules, so the final network has as many: `retrain.layers` is null or equal.
        channels: of the stem; numbers of filters are multiples of it.
        widths: filters, as a multiple of `channels`, rounded to whole channels.
        kernels: sides of the convolutions, odd.
        rates: probabilities of dropout.
        units: numbers of units in a module.

    Raises:
        ValueError: a size out of its range, an even kernel, an empty list or one with a value given
            twice, or operations of the user's own.
    """
    if even := [kernel for kernel in kernels if kernel % 2 == 0]:
        raise ValueError(f"kernels: expected odd numbers, found {even[0]}")
    filters = dependent(
        lambda width: max(1, round(width * channels)), hyperparameter("width", *widths)
    )
    unit = _unit(filters, hyperparameter("kernel", *kernels), hyperparameter("rate", *rates))
    one = _module(repeat_tied("units", unit, units))
    return program_space(repeat("layer", one, (layers,)), channels=channels, **common)


def _unit(filters: Any, kernel: Any, rate: Any) -> Module:
    norm, relu = layer("batch_norm"), layer("relu")
    return sequence(
        layer("conv", filters=filters, kernel=kernel),
        or_("norm", no=relu, yes=maybe_swap("order", norm, relu)),
        optional("dropout", layer("dropout", rate=rate)),
    )


def _module(units: Module) -> Module:
    """One of three; the first two share the decisions of their units, as a model has one."""
    pools = or_("pool", max=layer("max_pool", size=2), average=layer("average_pool", size=2))
    return or_("kind", plain=units, residual=residual(units), pool=pools)
