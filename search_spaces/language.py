"""A language of search spaces: a space is a program, a model is what remains of it when all its
hyper-parameters are decided.

A program is built of layers and of combinators, which nest. `search_spaces.decisions` draws,
replays and mutates models. There is no torch here: a model is a tree of names and numbers.

A hyper-parameter is known by its name: the same name is the same hyper-parameter wherever it
stands, and is decided once. `repeat` prefixes the names in each copy, so copies decide apart; what
they are to share comes from outside by a `substitution`. Hyper-parameters are decided in the order
in which they are written, and only those that the decisions before leave in the program.

Source: Negrinho & Gordon 2017, arXiv:1704.08792, and Negrinho et al. 2019, arXiv:1909.13404, by
their public code. Not as there: sharing by name, and no assignment of values by hand.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

Values = Mapping[str, Any]  # hyper-parameter -> its value


class Term:
    """A part of a program. `parts` are terms or plain values, in the order of their decisions."""

    parts: tuple[Any, ...]

    def rebuilt(self, parts: tuple[Any, ...]) -> Any:
        """The same with other parts; a plain value where they determine one."""
        raise NotImplementedError

    @cached_property
    def first(self) -> "Hyperparameter | None":
        """The hyper-parameter that is decided next; None: all are decided."""
        return next((part.first for part in self.parts if undecided(part)), None)

    @cached_property
    def hyperparameters(self) -> dict[str, tuple[Any, ...]]:
        """All that any model decides, with their values, in order of the program.

        Raises ValueError where two of one name have different values.
        """
        return joined(part.hyperparameters for part in self.parts if undecided(part))

    def bound(self, values: Values) -> Any:
        """The program in which these hyper-parameters have these values."""
        return self.rebuilt(tuple(bind(part, values) for part in self.parts))

    def scoped(self, prefix: str) -> Any:
        """The program in which every name has this prefix."""
        return self.rebuilt(tuple(scope(part, prefix) for part in self.parts))


class Module(Term):
    """A part of a network; `kind` says which, once its own hyper-parameters are decided."""

    kind: str


@dataclass(frozen=True)
class Hyperparameter(Term):
    """An independent hyper-parameter."""

    name: str
    values: tuple[Any, ...]
    parts = ()

    def rebuilt(self, parts: tuple[Any, ...]) -> "Hyperparameter":
        return self

    @cached_property
    def first(self) -> "Hyperparameter":
        return self

    @cached_property
    def hyperparameters(self) -> dict[str, tuple[Any, ...]]:
        return {self.name: self.values}

    def bound(self, values: Values) -> Any:
        return values.get(self.name, self)

    def scoped(self, prefix: str) -> "Hyperparameter":
        return replace(self, name=f"{prefix}/{self.name}")


@dataclass(frozen=True)
class Dependent(Term):
    """A function of others; it has its value as soon as they have."""

    function: Callable[..., Any]
    parts: tuple[Any, ...]

    def rebuilt(self, parts: tuple[Any, ...]) -> Any:
        open_ = any(map(undecided, parts))
        return replace(self, parts=parts) if open_ else self.function(*parts)


@dataclass(frozen=True)
class Layer(Module):
    """A basic module: a kind, and its settings by name."""

    kind: str
    names: tuple[str, ...]
    parts: tuple[Any, ...]

    @classmethod
    def of(cls, kind: str, **settings: Any) -> "Layer":
        return cls(kind, tuple(settings), tuple(settings.values()))

    def rebuilt(self, parts: tuple[Any, ...]) -> "Layer":
        return Layer(self.kind, self.names, parts)

    def __getitem__(self, name: str) -> Any:
        return self.parts[self.names.index(name)]

    @property
    def settings(self) -> dict[str, Any]:
        return dict(zip(self.names, self.parts, strict=True))


@dataclass(frozen=True)
class Compound(Module):
    """Modules put together: a `sequence`, a `residual` (its input plus its output), or a `concat`
    of the outputs of several on one input."""

    kind: str
    parts: tuple[Any, ...]

    def rebuilt(self, parts: tuple[Any, ...]) -> "Compound":
        return Compound(self.kind, parts)


@dataclass(frozen=True)
class Substitution(Module):
    """A sub-space that is a function of hyper-parameters, and not evaluated before they are
    decided."""

    function: Callable[..., Module]
    parts: tuple[Any, ...]
    prefixes: tuple[str, ...] = ()  # of the names in the sub-space

    def rebuilt(self, parts: tuple[Any, ...]) -> Module:
        if any(map(undecided, parts)):
            return replace(self, parts=parts)
        found = self.function(*parts)
        if not isinstance(found, Module):
            given = ", ".join(map(str, parts))
            raise ValueError(f"substitution: expected a module for values {given}, found {found!r}")
        for prefix in self.prefixes:
            found = found.scoped(prefix)
        return found

    @cached_property
    def hyperparameters(self) -> dict[str, tuple[Any, ...]]:
        own = joined(part.hyperparameters for part in self.parts if undecided(part))
        values = (dict(zip(own, chosen, strict=True)) for chosen in product(*own.values()))
        return joined([own, *(bind(self, chosen).hyperparameters for chosen in values)])

    def bound(self, values: Values) -> Module:
        parts = tuple(bind(part, values) for part in self.parts)
        found = self.rebuilt(parts)
        return found if any(map(undecided, parts)) else bind(found, values)

    def scoped(self, prefix: str) -> Module:
        prefixes = (*self.prefixes, prefix)
        parts = tuple(scope(part, prefix) for part in self.parts)
        return replace(self, prefixes=prefixes).rebuilt(parts)


def undecided(part: Any) -> bool:
    """Whether something is left to decide in a term; in a plain value there is not."""
    return isinstance(part, Term) and part.first is not None


def bind(part: Any, values: Values) -> Any:
    """`Term.bound` for terms and plain values."""
    return part.bound(values) if undecided(part) else part


def scope(part: Any, prefix: str) -> Any:
    """`Term.scoped` for terms and plain values."""
    return part.scoped(prefix) if undecided(part) else part


def joined(found: Iterable[Mapping[str, tuple[Any, ...]]]) -> dict[str, tuple[Any, ...]]:
    """Hyper-parameters of several terms. Raises ValueError for a name with different values."""
    whole: dict[str, tuple[Any, ...]] = {}
    for name, values in (item for one in found for item in one.items()):
        if whole.setdefault(name, values) != values:
            a, b = (", ".join(map(str, v)) for v in (whole[name], values))
            raise ValueError(f"'{name}': the same name has values {a} and {b}; rename one")
    return whole


# What programs are written in


def hyperparameter(name: str, *values: Any) -> Any:
    """An independent hyper-parameter; the value itself if there is one only.

    Raises ValueError for no values, or one that is given twice.
    """
    if not values:
        raise ValueError(f"'{name}': expected at least one value, found none")
    if len(set(values)) < len(values):
        raise ValueError(f"'{name}': a value is given twice: {', '.join(map(str, values))}")
    return values[0] if len(values) == 1 else Hyperparameter(name, values)


def dependent(function: Callable[..., Any], *arguments: Any) -> Any:
    """A hyper-parameter that is a function of others, such as a width twice another."""
    return Dependent(function, ()).rebuilt(arguments)


def layer(kind: str, **settings: Any) -> Layer:
    """A basic module; settings are hyper-parameters or plain values."""
    return Layer.of(kind, **settings)


def sequence(*modules: Module) -> Compound:
    """Modules one after the other; none: the identity."""
    return Compound("sequence", modules)


def residual(module: Module) -> Compound:
    """The input of a module plus its output."""
    return Compound("residual", (module,))


def concat(*modules: Module) -> Compound:
    """The outputs of modules on one input, their channels one after the other."""
    return Compound("concat", modules)


def substitution(function: Callable[..., Module], *arguments: Any) -> Module:
    """The module that a function returns for the values of hyper-parameters, once they are decided.

    Raises ValueError, as soon as it is evaluated, if that is not a module.
    """
    return Substitution(function, ()).rebuilt(arguments)


def or_(name: str, **options: Module) -> Module:
    """One of several modules, by their labels."""
    return substitution(options.__getitem__, hyperparameter(name, *options))


def optional(name: str, module: Module) -> Module:
    """A module or the identity."""
    return or_(name, no=sequence(), yes=module)


def maybe_swap(name: str, first: Module, second: Module) -> Module:
    """Two modules in either order."""
    return or_(name, kept=sequence(first, second), swapped=sequence(second, first))


def repeat(name: str, module: Module, counts: Sequence[int]) -> Module:
    """As many copies one after the other as is decided; every copy decides for itself.

    Names in copy i have the prefix `name[i]/`. Raises ValueError for a negative count.
    """

    def copies(count: int) -> Module:
        return sequence(*(module.scoped(f"{name}[{i}]") for i in range(count)))

    return substitution(copies, _count(name, counts))


def repeat_tied(name: str, module: Module, counts: Sequence[int]) -> Module:
    """As many equal copies as is decided: they share all decisions, under the prefix `name/`.

    Raises ValueError for a negative count.
    """
    return substitution(
        lambda count: sequence(*[module.scoped(name)] * count), _count(name, counts)
    )


def _count(name: str, counts: Sequence[int]) -> Any:
    if counts and min(counts) < 0:
        raise ValueError(f"'{name}': expected counts of at least 0, found {min(counts)}")
    return hyperparameter(name, *counts)
