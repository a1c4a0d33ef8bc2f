"""A search space as data: its choices, and what a family needs to build networks of it.

There is no torch here: a space only says what may be built; `supernets` builds it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from search_spaces.choice import Choice, Row
from search_spaces.settings import Range


@dataclass(frozen=True, kw_only=True)
class Space(ABC):
    """A set of choices, and the shapes at both ends; each family of spaces is a subclass.

    `settings` are the numbers and names that `family` needs to build the same space again; they
    are what an architecture file stores. `operations` maps an option's name to its constructor.
    """

    name: str
    family: Callable[..., "Space"]
    settings: Mapping[str, Any]
    operations: Mapping[str, Callable[..., Any]]
    input_shape: tuple[int, int, int]  # (C, H, W)
    classes: int
    stem: str  # a name in supernets.skeleton.STEMS
    stem_channels: int
    head: str  # a name in supernets.skeleton.HEADS
    only_way: ClassVar[bool] = False  # whether what a row keeps is the only way, so never dropped
    affine: bool = True  # whether batch norms before cells of final networks have scale and shift
    extra_operations: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    @abstractmethod
    def choices(self) -> dict[str, Choice]:
        """Name -> choice, in the order of the network."""

    @property
    def body(self) -> list[str]:
        """The choices that are judged for a collapse: if they keep nothing but options without
        weights, the network can hardly learn."""
        return list(self.choices)

    def resize(self, **changes: Any) -> "Space":
        """The same space with other settings, such as `layers`, `channels` or `classes`."""
        return self.family(**{**self.settings, **changes}, operations=self.extra_operations)


# Bounds keep a machine responsive that reads an architecture file of unknown origin.
MOST_LAYERS = 1000
Nodes = Annotated[int, Range(ge=1, le=64)]
Channels = Annotated[int, Range(ge=1, le=10_000)]


def known_operations(
    family: Mapping[str, Callable[..., Any]],
    extra: Mapping[str, Callable[..., Any]],
    rows: Iterable[Row],
) -> dict[str, Callable[..., Any]]:
    """The constructors a row may name. Raises ValueError for unknown or redefined candidates."""
    clash = sorted(set(family) & set(extra))
    if clash:
        raise ValueError(f"operations: '{clash[0]}' is a candidate already; choose another name")
    operations = {**family, **extra}
    for row in rows:
        if not row.options:
            raise ValueError(f"candidates: edge {row.name} has none; name at least one")
        if len(set(row.names)) < len(row.names):
            raise ValueError(f"candidates: named twice on edge {row.name}: {list(row.names)}")
        if all(option.kind == "zero" for option in row.options):
            raise ValueError(
                f"candidates: edge {row.name} has only '{row.names[0]}', which passes "
                f"nothing on; add one of {', '.join(sorted(set(operations) - set(row.names)))}"
            )
        for name in row.names:
            if name not in operations:
                raise ValueError(f"candidates: unknown '{name}'; known: {', '.join(operations)}")
    return operations
