"""A search space as data: its choices, and what a family needs to build networks of it.

There is no torch here: a space only says what may be built; `supernets` builds it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, ClassVar

from search_spaces.choice import Choice
from search_spaces.settings import Count, Range, checked

Operations = Mapping[str, Callable[..., Any]]


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
    stem: str  # a name in search_spaces.stems.STEMS
    stem_channels: int
    head: str  # a name in supernets.skeleton.HEADS
    builder: ClassVar[str]  # "module:class" of the family's `supernets.builder.Builder`
    only_way: ClassVar[bool] = False  # whether what a row keeps is the only way, so never dropped
    has_supernet: ClassVar[bool] = True  # else it is searched by searchers alone
    costs_add_up: ClassVar[bool] = True  # whether each option costs the same beside any others
    costs_rise: ClassVar[bool] = False  # whether a row's options are in the order of their costs
    trained: ClassVar[bool] = False  # whether its networks start from trained weights
    reads_text: ClassVar[bool] = False  # whether inputs are token ids (1, 1, T), else images
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

    @property
    def unpruned(self) -> Mapping[str, Mapping[str, Sequence[str]]] | None:
        """Choice -> row -> what the largest network keeps; None in a family without one."""
        return None

    def resize(self, **changes: Any) -> "Space":
        """The same space with other settings, such as `layers`, `channels` or `classes`."""
        return self.family(**{**self.settings, **changes}, operations=self.extra_operations)


# Bounds keep a machine responsive that reads an architecture file of unknown origin.
MOST_LAYERS = 1000
Nodes = Annotated[int, Range(ge=1, le=64)]
Channels = Annotated[int, Range(ge=1, le=10_000)]


def family(
    name: str, candidates: Operations
) -> Callable[[Callable[..., "Space"]], Callable[..., "Space"]]:
    """Decorates a function that builds a space from sizes: `build(*, ..., **common) -> Space`.

    The decorated function also takes `input_shape` (C, H, W), `classes` and `operations`, more
    candidates than those of the family. `common` holds the fields of a `Space` that follow from
    that; `build` passes them to the constructor.

    candidates: name -> constructor. The decorated function raises ValueError for a size that does
    not fit its annotation, and for rows as `_check_rows` does.
    """

    def decorate(build: Callable[..., Space]) -> Callable[..., Space]:
        def made(
            *,
            input_shape: Sequence[int],
            classes: Count,
            operations: Operations | None = None,
            **sizes: Any,
        ) -> Space:
            C, H, W = input_shape
            shapes = {"input_shape": (C, H, W), "classes": classes}
            extra = operations or {}
            space = build(
                **sizes,
                **shapes,
                name=name,
                family=described,
                settings=_settings(build, sizes) | shapes,
                operations=_joined(candidates, extra),
                extra_operations=extra,
            )
            _check_rows(space)
            return space

        described = _described(made, name, build)
        return described

    return decorate


def with_operations(
    common: Mapping[str, Any], own: Mapping[str, Callable[..., Any]]
) -> dict[str, Any]:
    """The fields of a space whose options follow from its sizes: `own` and those of the user.

    Raises ValueError for redefined ones.
    """
    return {**common, "operations": _joined(own, common["extra_operations"])}


def _described(
    made: Callable[..., Space], name: str, build: Callable[..., Space]
) -> Callable[..., Space]:
    """The decorated function with name, text and parameters of `build`."""
    sizes = [p for p in signature(build).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    own = [p for p in signature(made).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    made.__name__ = made.__qualname__ = name  # a space is pickled by the name of its family
    made.__doc__, made.__module__ = build.__doc__, build.__module__
    made.__signature__ = Signature([*sizes, *own])  # type: ignore[attr-defined]
    return checked(made)


def _settings(build: Callable[..., Space], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """All sizes of a space, those left at their defaults, too."""
    parameters = signature(build).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
    return {name: sizes.get(name, default) for name, default in known.items()}


def _joined(candidates: Operations, extra: Operations) -> dict[str, Callable[..., Any]]:
    """The constructors a row may name. Raises ValueError for redefined candidates."""
    clash = sorted(set(candidates) & set(extra))
    if clash:
        raise ValueError(f"operations: '{clash[0]}' is a candidate already; choose another name")
    return {**candidates, **extra}


def _check_rows(space: Space) -> None:
    """Raises ValueError for rows that offer nothing, or what the space does not know."""
    known = space.operations
    for row in (row for choice in space.choices.values() for row in choice.rows):
        if not row.options:
            raise ValueError(f"candidates: edge {row.name} has none; name at least one")
        if len(set(row.names)) < len(row.names):
            raise ValueError(f"candidates: named twice on edge {row.name}: {list(row.names)}")
        if all(option.kind == "zero" for option in row.options):
            raise ValueError(
                f"candidates: edge {row.name} has only '{row.names[0]}', which passes nothing on; "
                f"add one of {', '.join(sorted(set(known) - set(row.names)))}"
            )
        for name in row.names:
            if name not in known:
                raise ValueError(f"candidates: unknown '{name}'; known: {', '.join(known)}")
