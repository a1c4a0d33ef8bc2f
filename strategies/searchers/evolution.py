"""Regularised evolution: the oldest of a population dies, a mutated tournament winner is born.

Source: Real et al. 2019, arXiv:1802.01548, section 3 and algorithm 1.
"""

from collections.abc import Mapping
from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.settings import Count, checked
from search_spaces.space import Space
from strategies.searchers.encoding import Draws, Taken
from strategies.searchers.searcher import Searcher


class Evolution(Searcher):
    """The first `population` architectures are random; each later one is the best of `tournament`
    distinct members, drawn at random, with one decision changed. `alpha_lr_scale` is unused.

    The paper draws the tournament with replacement; its public benchmarks, without [code].

    Raises:
        ValueError: the tournament is larger than the population.
    """

    @checked
    def __init__(
        self,
        space: Space,
        alpha_lr_scale: float | None = None,
        asks: Count | None = None,
        population: Count = 10,
        tournament: Count = 3,
    ):
        super().__init__(space, asks)
        if tournament > population:
            raise ValueError(
                f"tournament: {tournament} of a population of {population} cannot be drawn; set it "
                f"to at most {population}"
            )
        self.size, self.tournament = population, tournament
        self.draws = Draws(space)
        self.population: list[tuple[Taken, float]] = []  # decisions and score, the oldest first

    def ask(self) -> Architecture:
        """A random architecture, or a tournament winner's child."""
        if len(self.population) < self.size:
            return self.draws.architecture(self.draws.answer())
        left = list(self.population)
        drawn = [left.pop(self.draws.below(len(left))) for _ in range(self.tournament)]
        parent, _ = max(drawn, key=lambda member: member[1])
        return self.draws.architecture(self.draws.mutated(parent))

    def tell(self, architecture: Architecture, score: float) -> None:
        born = self.draws.of(architecture.choices), score
        self.population = [*self.population, born][-self.size :]

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self.draws.source.getstate(),
            "population": [list(member) for member in self.population],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.draws.source.setstate(state["random"])
        self.population = [(dict(taken), float(score)) for taken, score in state["population"]]
