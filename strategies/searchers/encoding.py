"""An architecture as an ordered list of decisions, the encoding that searchers share.

Source: Negrinho & Gordon 2017, arXiv:1704.08792, and its public code: a search space is traversed
in a fixed order, each choice depends only on those before it, and the list of decisions rebuilds
the model.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice, Option
from search_spaces.space import Space

Kept = Mapping[str, Mapping[str, tuple[str, ...]]]  # choice -> row -> the option that it keeps
Rows = dict[str, tuple[str, ...]]
Taken = dict[str, int]  # name of a decision -> position of its value, in the order of the traversal


class Decision(NamedTuple):
    """Which set of rows a target keeps (`row` is None), or which option a row.

    values: sets of rows; or options, each a tuple of one name, or of none for a zero.
    """

    name: str
    choice: str
    row: str | None
    values: Sequence[tuple[str, ...]]

    def made_in(self, kept: Kept) -> int:
        """The position of the value that an architecture has."""
        rows = kept[self.choice]
        if self.row is None:
            return next(i for i, names in enumerate(self.values) if all(n in rows for n in names))
        return self.values.index(rows.get(self.row, ()))


Pick = Callable[[Decision], int]  # the position of a value


class Answer(NamedTuple):
    """A complete traversal of a space: its decisions, and what they keep."""

    taken: Taken
    kept: dict[str, Rows]


class Stage(NamedTuple):
    """One target of a choice: `sets` is the decision which rows it keeps; None: all of them. `rows`
    are the options of each."""

    sets: Decision | None
    rows: dict[str, list[Option]]


class Decisions:
    """The decisions of a space, in order: per target of a choice, which of its rows are kept (a set
    of `keep` rows is one decision), then one option for each of these rows, among those that fit
    the option decided before (`Option.follows`)."""

    def __init__(self, space: Space):
        self.space = space
        self.stages = {
            name: [_stage(name, choice, target) for target in choice.targets]
            for name, choice in space.choices.items()
        }

    def traverse(self, pick: Pick) -> Answer:
        """Decides everything with `pick`; a decision with one value is made without it."""
        taken: Taken = {}

        def position(decision: Decision) -> int:
            if len(decision.values) == 1:
                return 0
            taken[decision.name] = pick(decision)
            return taken[decision.name]

        kept: dict[str, Rows] = {}
        for name, stages in self.stages.items():
            kept[name] = {}
            before: Option | None = None
            for sets, rows in stages:
                for row in rows if sets is None else sets.values[position(sets)]:
                    options = [option for option in rows[row] if option.follows(before)]
                    before = options[position(_among(options, name, row))]
                    if before.kind != "zero":
                        kept[name][row] = (before.name,)
        return Answer(taken, kept)

    def of(self, kept: Kept) -> Taken:
        """The decisions that rebuild an architecture from what its rows keep."""
        return self.traverse(lambda decision: decision.made_in(kept)).taken

    def connects(self, answer: Answer) -> bool:
        """Whether the output of every choice depends on its input."""
        choices = self.space.choices
        return all(choice.connects(answer.kept[name]) for name, choice in choices.items())

    def architecture(self, answer: Answer) -> Architecture:
        """The architecture of an answer."""
        return Architecture.of(self.space, answer.kept)


def _stage(name: str, choice: Choice, target: int) -> Stage:
    into, keep, sets = [choice.rows[r] for r in choice.into(target)], choice.keep, None
    if keep is not None and keep < len(into):
        values = list(combinations((row.name for row in into), keep))
        sets = Decision(f"{name}/into {target}", name, None, values)
    rows = {r.name: [o for o in r.options if o.kind != "zero" or keep is None] for r in into}
    return Stage(sets, rows)


def _among(options: list[Option], choice: str, row: str) -> Decision:
    """Which of these options a row keeps."""
    names: list[tuple[str, ...]] = [() if o.kind == "zero" else (o.name,) for o in options]
    return Decision(f"{choice}/{row}", choice, row, names)


class Draws(Decisions):
    """Random answers from a generator of its own, seeded by torch's global one.

    Values of a decision are equally likely, so architectures are, too, if rows that compete have
    equally many options.
    """

    ATTEMPTS = 1000  # at a mutation

    def __init__(self, space: Space):
        super().__init__(space)
        self.source = random.Random(int(torch.randint(2**62, ())))

    def below(self, count: int) -> int:
        """A whole number from 0 to `count` - 1."""
        return self.source.randrange(count)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.source.random() < probability

    def answer(self) -> Answer:
        """A random answer; one whose output does not depend on its input is drawn again."""
        while True:
            found = self.traverse(lambda decision: self.below(len(decision.values)))
            if self.connects(found):
                return found

    def mutated(self, parent: Mapping[str, int]) -> Answer:
        """The parent with another value of one decision; decisions that it newly raises are drawn.
        A later one whose options depend on that value keeps its position among those that fit.

        All are drawn again if the output would not depend on the input; after `ATTEMPTS` in vain,
        the answer is a random one.
        """
        names = list(parent)
        for _ in range(self.ATTEMPTS if names else 0):
            changed = names[self.below(len(names))]

            def pick(decision: Decision, changed: str = changed) -> int:
                name, count = decision.name, len(decision.values)
                if name == changed:
                    return (parent[name] + 1 + self.below(count - 1)) % count
                return parent[name] if parent.get(name, count) < count else self.below(count)

            found = self.traverse(pick)
            if self.connects(found):
                return found
        return self.answer()
