"""What a search decides: a choice is a table of rows and options.

A strategy sees nothing else of a space: alphas, gates and masks are tables (R, O) of a choice. Each
family of spaces has its own kind of choice, such as the cell of `search_spaces.cells`.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

Kept = Mapping[str, tuple[str, ...]]  # row -> the options it keeps

# The kinds of the options that we ship. Any other option is an "op", unless the space that offers
# it says otherwise.
KINDS = {
    "none": "zero",
    "skip_connect": "identity",
    "max_pool_3x3": "pool",
    "avg_pool_3x3": "pool",
    "sep_conv_3x3": "conv",
    "sep_conv_5x5": "conv",
    "dil_conv_3x3": "conv",
    "dil_conv_5x5": "conv",
    "sep_conv_7x7": "conv",
    "flood_conv_3x3": "conv",
    "flood_conv_5x5": "conv",
    "dil_flood_conv_3x3": "conv",
    "dil_flood_conv_5x5": "conv",
    "choke_conv_3x3": "conv",
    "dil_choke_conv_3x3": "conv",
    "noise": "noise",
    "nor_conv_1x1": "conv",
    "nor_conv_3x3": "conv",
    "mbconv_3x3_e1": "conv",
    "mbconv_3x3_e3": "conv",
    "mbconv_3x3_e6": "conv",
    "mbconv_5x5_e3": "conv",
    "mbconv_5x5_e6": "conv",
}
# Kinds without weights, by the name of several of them.
FREE = {"identity": "skip connections", "pool": "pools", "noise": "noise"}


@dataclass(frozen=True)
class Option:
    """What a row may keep.

    name: stands in architecture files, so it never changes. kind: `zero` (passes nothing on, and is
    never kept), `noise` (ignores its input), `identity`, `pool`, `conv`, or `op` for all else.
    begin, end: what it connects, such as widths, in a choice whose rows follow one another: an
    option fits one of the row before that ends where it begins. None fits everything.
    """

    name: str
    kind: str = "op"
    begin: int | None = None
    end: int | None = None

    def follows(self, before: "Option | None") -> bool:
        """Whether a network can keep it behind the option of the row before; None: there is no such
        row."""
        return before is None or None in (before.end, self.begin) or before.end == self.begin

    @classmethod
    def of(cls, option: "str | Option") -> "Option":
        """The option of a name, of the kind that `KINDS` gives."""
        return option if isinstance(option, Option) else cls(option, KINDS.get(option, "op"))


@dataclass(frozen=True)
class Row:
    """One decision. `source` and `target` are the states that it connects in its choice's graph."""

    source: int
    target: int
    options: tuple[Option, ...]

    @property
    def name(self) -> str:
        """The row's name in architecture files."""
        return f"{self.source}-{self.target}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the options."""
        return tuple(option.name for option in self.options)


class Choice(ABC):
    """Rows of options, and how many of them a discrete network has.

    Rows are ordered by target; rows with fewer than O options are padded. States 0 to `inputs` - 1
    are the choice's inputs, and its output is made from the states `outputs`.

    `keep` is how many rows of each target a discrete network has, each with one option that is not
    a zero; None: every row has one option, which may be a zero.
    """

    keep: int | None
    inputs: int
    whole: bool = False  # whether a network needs every row to keep something
    single: bool = False  # whether a network can keep only one option of a row
    joint: bool = False  # whether options share their computations, so that sampling saves nothing

    @property
    @abstractmethod
    def rows(self) -> tuple[Row, ...]: ...

    @property
    def linked(self) -> bool:
        """Whether the options of a row depend on what the row before keeps: `Option.follows`."""
        return any(option.begin is not None for row in self.rows for option in row.options)

    @property
    @abstractmethod
    def outputs(self) -> Collection[int]: ...

    @cached_property
    def targets(self) -> tuple[int, ...]:
        """The states that rows lead into, in order."""
        return tuple(sorted({row.target for row in self.rows}))

    def into(self, target: int) -> list[int]:
        """Positions of the rows into a state; they compete if `keep` is a number."""
        return [r for r, row in enumerate(self.rows) if row.target == target]

    def out_of(self, source: int) -> list[int]:
        """Positions of the rows out of a state."""
        return [r for r, row in enumerate(self.rows) if row.source == source]

    @property
    def width(self) -> int:
        """O: the most options of a row."""
        return max(len(row.options) for row in self.rows)

    def offers(self, *, zero: bool) -> list[list[bool]]:
        """(R, O): whether there is an option; zeros count only if `zero`."""
        missing = [False] * self.width
        return [
            [zero or option.kind != "zero" for option in row.options] + missing[len(row.options) :]
            for row in self.rows
        ]

    def drawn(self, kept: Kept) -> "tuple[Choice, Kept]":
        """The graph that a drawing shows, and what its rows keep: its own, unless overridden."""
        return self, kept

    def connects(self, kept: Collection[str]) -> bool:
        """Whether the output depends on the inputs if the rows of these names are kept."""
        reached = set(range(self.inputs))
        for row in self.rows:  # by target: a state is complete before rows leave it
            if row.source in reached and row.name in kept:
                reached.add(row.target)
        return not reached.isdisjoint(self.outputs)


@dataclass(frozen=True)
class InOrder(Choice):
    """Rows one after the other, each of which takes one option."""

    decisions: tuple[Row, ...]
    joint: bool = False
    keep = 1
    inputs = 1
    whole = True
    single = True

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.decisions

    @property
    def outputs(self) -> tuple[int, ...]:
        return (len(self.decisions),)
