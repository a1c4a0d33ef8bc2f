"""Sequential model-based optimisation: a linear surrogate predicts scores, the best is asked for.

Source: Negrinho & Gordon 2017, arXiv:1704.08792, and its public code.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.settings import Count, Positive, Share, checked
from search_spaces.space import Space
from strategies.searchers.encoding import Answer, Draws, Kept
from strategies.searchers.searcher import Searcher

COLUMNS = 256  # of the hashed features


def ngrams(choice: Choice, kept: Mapping[str, tuple[str, ...]], longest: int) -> Counter[str]:
    """How often each sequence of 1 to `longest` options stands on consecutive kept rows."""
    ending: dict[int, list[tuple[str, ...]]] = {}  # state -> the sequences that end there
    found: list[str] = []
    for row in choice.rows:  # by target: what enters a state is complete before rows leave it
        for option in kept.get(row.name, ()):
            before = [one for one in ending.get(row.source, ()) if len(one) < longest]
            here = [(option,), *((*sequence, option) for sequence in before)]
            ending.setdefault(row.target, []).extend(here)
            found += map(" ".join, here)
    return Counter(found)


def _key(kept: Kept) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(item for rows in kept.values() for item in sorted(rows.items()))


class Smbo(Searcher):
    """Asks for the best of `candidates` random architectures by a ridge regression on all scores,
    or, with probability `exploration`, for a random one. `alpha_lr_scale` is unused.

    The features are the options by row, and the counts of the n-grams of options on consecutive
    rows. They are hashed by a stable function (the public code of the source counts n-grams of
    modules seen at least 3 times). Architectures with a score are no candidates again [ours], but
    may be drawn by `exploration`.

    Args:
        ridge: the penalty on the squared coefficients.
        ngram: the longest n-gram.
    """

    @checked
    def __init__(
        self,
        space: Space,
        alpha_lr_scale: float | None = None,
        asks: Count | None = None,
        candidates: Count = 50,
        exploration: Share = 0.25,
        ridge: Positive = 1.0,
        ngram: Count = 4,
    ):
        super().__init__(space, asks)
        self.candidates, self.exploration = candidates, exploration
        self.ridge, self.ngram = ridge, ngram
        self.draws = Draws(space)
        self.known: list[tuple[Kept, float]] = []  # what was told
        self.model: Any = None  # fitted to `known`; None if it is not up to date
        self.rows: list[np.ndarray] = []  # the features of `known`

    def ask(self) -> Architecture:
        """The candidate with the highest predicted score, or a random one."""
        if not self.known or self.draws.chance(self.exploration):
            found = self.draws.answer()
        else:
            found = self._best([self.draws.answer() for _ in range(self.candidates)])
        return self.draws.architecture(found)

    def _best(self, drawn: list[Answer]) -> Answer:
        known = {_key(kept) for kept, _ in self.known}
        new = [one for one in drawn if _key(one.kept) not in known] or drawn
        if self.model is None:
            self._fit()
        predicted = self.model.predict(self._features([one.kept for one in new]))
        return new[int(predicted.argmax())]

    def _fit(self) -> None:
        from sklearn.linear_model import Ridge  # the import takes a second

        left = [kept for kept, _ in self.known[len(self.rows) :]]
        self.rows += list(self._features(left))
        scores = [score for _, score in self.known]
        self.model = Ridge(alpha=self.ridge).fit(np.stack(self.rows), scores)

    def _features(self, networks: list[Kept]) -> np.ndarray:
        """(N, COLUMNS)."""
        from sklearn.feature_extraction import FeatureHasher

        hashed = FeatureHasher(COLUMNS).transform(map(self._counts, networks))
        table: np.ndarray = hashed.toarray()
        return table

    def _counts(self, kept: Kept) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, choice in self.space.choices.items():
            counts.update(f"{name}/{row}={option}" for row, (option,) in kept[name].items())
            counts.update(ngrams(choice, kept[name], self.ngram))
        return counts

    def tell(self, architecture: Architecture, score: float) -> None:
        self.known.append((architecture.choices, score))
        self.model = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self.draws.source.getstate(),
            "known": [[dict(kept), score] for kept, score in self.known],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.draws.source.setstate(state["random"])
        self.known = [(kept, float(score)) for kept, score in state["known"]]
        self.model, self.rows = None, []
