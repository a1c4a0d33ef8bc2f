"""Models of a program as ordered decisions: (name of a hyper-parameter, index of its value) each.

The order is that of the program, so the same decisions always give the same model. Only
hyper-parameters that a model has are decided.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import prod
from random import Random
from typing import Any

from search_spaces.language import Hyperparameter, Module, Substitution, bind, undecided

Decisions = tuple[tuple[str, int], ...]
Choose = Callable[[Hyperparameter, Module, Mapping[str, Any]], int]


def traverse(space: Module, choose: Choose) -> tuple[Module, Decisions]:
    """The model that a function chooses, and its decisions.

    choose: (hyper-parameter, what is left of the program, values so far) -> index of a value.
    """
    decisions: list[tuple[str, int]] = []
    values: dict[str, Any] = {}
    while (asked := space.first) is not None:
        index = choose(asked, space, values)
        decisions.append((asked.name, index))
        values[asked.name] = asked.values[index]
        space = bind(space, values)
    return space, tuple(decisions)


def replay(space: Module, decisions: Sequence[tuple[str, int]]) -> Module:
    """The model of these decisions. Raises ValueError unless they are exactly what is asked."""
    left = iter(enumerate(decisions))

    def choose(asked: Hyperparameter, *_: Any) -> int:
        i, (name, index) = next(left, (len(decisions), (None, 0)))
        if name != asked.name:
            found = "the end" if name is None else f"'{name}'"
            raise ValueError(f"decision {i}: expected '{asked.name}', found {found}")
        if not 0 <= index < len(asked.values):
            raise ValueError(
                f"decision {i}: expected an index of '{name}' from 0 to {len(asked.values) - 1}, "
                f"found {index}"
            )
        return index

    model, _ = traverse(space, choose)
    for i, (name, _) in left:
        raise ValueError(f"decision {i}: expected the end, found '{name}'")
    return model


def draw(space: Module, rng: Random) -> Decisions:
    """Decisions at random, uniform over the values of each; models of large sub-spaces are rarer.

    The random search of the source.
    """
    return traverse(space, lambda asked, *_: rng.randrange(len(asked.values)))[1]


def draw_model(space: Module, rng: Random) -> Decisions:
    """Decisions at random, uniform over models: a value counts as often as it leaves models."""

    def choose(asked: Hyperparameter, left: Module, values: Mapping[str, Any]) -> int:
        counts = [_completions((left,), {**values, asked.name: v}) for v in asked.values]
        at, index = rng.randrange(sum(counts)), 0
        while at >= counts[index]:
            at, index = at - counts[index], index + 1
        return index

    return traverse(space, choose)[1]


def mutate(space: Module, decisions: Sequence[tuple[str, int]], rng: Random) -> Decisions:
    """Decisions of which one, any with equal probability, takes another value.

    All others that are met again stay; those that are new are drawn as `draw` does. Raises
    ValueError if there is nothing to decide, or the decisions do not fit the space.
    """
    replay(space, decisions)
    if not decisions:
        raise ValueError("mutate: expected a space with a choice, found one with one model")
    kept, changed = dict(decisions), rng.choice(decisions)[0]

    def choose(asked: Hyperparameter, *_: Any) -> int:
        number = len(asked.values)
        if asked.name == changed:
            return (kept[changed] + rng.randrange(1, number)) % number
        return kept[asked.name] if asked.name in kept else rng.randrange(number)

    return traverse(space, choose)[1]


def models(space: Module) -> Iterator[tuple[Module, Decisions]]:
    """All models, first values first, with their decisions."""

    def below(left: Module, decisions: Decisions, values: Mapping[str, Any]) -> Iterator[Any]:
        asked = left.first
        if asked is None:
            yield left, decisions
            return
        for index, value in enumerate(asked.values):
            more = {**values, asked.name: value}
            yield from below(bind(left, more), (*decisions, (asked.name, index)), more)

    yield from below(space, (), {})


def count(space: Module) -> int:
    """How many models there are: lists of decisions, two of which may give equal networks.

    Parts that share no hyper-parameter are counted apart, so spaces far too large to enumerate are
    counted at once.
    """
    return _completions((space,), {})


def _completions(terms: tuple[Any, ...], values: Mapping[str, Any]) -> int:
    """In how many ways terms can be decided after some hyper-parameters have values."""
    left = _open(tuple(bind(term, values) for term in terms))
    known = [_read(part, values) for part in _apart(left)]
    return prod(_count(part, read) for part, read in known)


@lru_cache(maxsize=100_000)
def _count(terms: tuple[Any, ...], values: tuple[tuple[str, Any], ...]) -> int:
    asked = terms[0].first
    return sum(_completions(terms, {**dict(values), asked.name: v}) for v in asked.values)


def _open(terms: tuple[Any, ...]) -> Iterator[Any]:
    """Hyper-parameters and substitutions that are undecided, without what stands around them."""
    for term in filter(undecided, terms):
        if isinstance(term, Hyperparameter | Substitution):
            yield term
        else:
            yield from _open(term.parts)


def _apart(terms: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Terms by groups that share no hyper-parameter."""
    found: list[tuple[set[str], tuple[Any, ...]]] = []
    for term in terms:
        names, group, others = set(term.hyperparameters), (term,), []
        for known, of in found:
            if names.isdisjoint(known):
                others.append((known, of))
            else:
                names, group = names | known, of + group
        found = [*others, (names, group)]
    return [group for _, group in found]


def _read(terms: tuple[Any, ...], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Terms, and the values that may still matter to them."""
    names = {name for term in terms for name in term.hyperparameters}
    return terms, tuple((name, value) for name, value in values.items() if name in names)
