"""Monte Carlo tree search over the decisions of a space, with UCT, and with bisection.

Source: Negrinho & Gordon 2017, arXiv:1704.08792, and its public code; UCT: Kocsis & Szepesvari
2006, doi:10.1007/11871842_29.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.settings import Count, NotNegative, checked
from search_spaces.space import Space
from strategies.searchers.encoding import Answer, Decision, Draws, Kept
from strategies.searchers.searcher import Searcher

Node = tuple[int, ...]  # the branches from the root


def uct(mean: float, visits: int, parent_visits: int, exploration: float) -> float:
    """mean + c sqrt(2 ln(N) / n), n visits of the node and N of its parent."""
    return mean + exploration * math.sqrt(2 * math.log(parent_visits) / visits)


class TreeSearch(Searcher):
    """The tree of decisions is descended by UCT to a node without visits; the rest is random.

    Each score is added to the nodes on the way, so one node joins the tree per architecture. An
    architecture whose output does not depend on its input counts as a score of 0 without being
    asked for [ours], and so does one that exceeds a budget [ours]. `alpha_lr_scale` is unused.

    Args:
        exploration: c of `uct`; scores are fractions.
        bisection: splits a decision among n values into binary ones, by halves of the values, so
            that neighbouring values share their statistics; for ordered values.
    """

    @checked
    def __init__(
        self,
        space: Space,
        alpha_lr_scale: float | None = None,
        asks: Count | None = None,
        exploration: NotNegative = 0.1,
        bisection: bool = False,
    ):
        super().__init__(space, asks)
        self.exploration, self.bisection = exploration, bisection
        self.draws = Draws(space)
        self.tree: dict[Node, tuple[int, float]] = {}  # visits and sum of scores

    def ask(self) -> Architecture:
        """The answer of one descent."""
        while True:
            found = self._descend()
            if self.draws.connects(found):
                return self.draws.architecture(found)
            self._add(found.kept, 0.0)

    def tell(self, architecture: Architecture, score: float) -> None:
        self._add(architecture.choices, score)

    def refuse(self, architecture: Architecture) -> None:
        self._add(architecture.choices, 0.0)

    def _descend(self) -> Answer:
        """UCT at the nodes of the tree, random branches below."""
        node: Node = ()

        def branch(count: int) -> int:
            nonlocal node
            chosen = self._best(node, count) if node in self.tree else self.draws.below(count)
            node = (*node, chosen)
            return chosen

        def pick(decision: Decision) -> int:
            low, high = 0, len(decision.values)
            if not self.bisection:
                return branch(high)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if branch(2) == 0 else (middle, high)
            return low

        return self.draws.traverse(pick)

    def _best(self, parent: Node, count: int) -> int:
        """A child without visits, or the one with the largest UCT value; ties are random."""

        def value(branch: int) -> float:
            if (*parent, branch) not in self.tree:
                return math.inf
            visits, total = self.tree[(*parent, branch)]
            return uct(total / visits, visits, self.tree[parent][0], self.exploration)

        values = [value(branch) for branch in range(count)]
        best = [branch for branch, found in enumerate(values) if found == max(values)]
        return best[self.draws.below(len(best))]

    def _add(self, kept: Kept, score: float) -> None:
        """Adds a score to the root and the nodes on the way; the first one outside joins them."""
        branches: list[int] = []

        def pick(decision: Decision) -> int:
            position = decision.made_in(kept)
            branches.extend(self._branches(position, len(decision.values)))
            return position

        self.draws.traverse(pick)
        for depth in range(len(branches) + 1):
            node = tuple(branches[:depth])
            new = node not in self.tree
            visits, total = self.tree.get(node, (0, 0.0))
            self.tree[node] = visits + 1, total + score
            if new:
                return

    def _branches(self, position: int, count: int) -> Iterator[int]:
        """The branches that lead to a value of a decision."""
        low, high = 0, count
        if not self.bisection:
            yield position
        while self.bisection and high - low > 1:
            middle = (low + high) // 2
            right = position >= middle
            low, high = (middle, high) if right else (low, middle)
            yield int(right)

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self.draws.source.getstate(),
            "tree": [[list(node), *sums] for node, sums in self.tree.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.draws.source.setstate(state["random"])
        self.tree = {tuple(node): (int(n), float(total)) for node, n, total in state["tree"]}
