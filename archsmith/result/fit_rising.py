"""Keeps an architecture within a budget where costs do not add up, but later options never cost
less: a trained network and its widths.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from archsmith.errors import ConfigError
from archsmith.result.fit import Fit
from archsmith.result.limits import NAMES, Budget, shown_amount
from archsmith.result.network import final_space
from archsmith.result.recipe import Recipe
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.builder import builder_of

ASKS = 200  # answers of a searcher before one is lowered
TIE = 1e-3  # what a lower option loses at least
ENOUGH = 0.5  # share of the largest gate that counts as undecided
SHRINK = 0.9  # of the multiply-accumulates, until a latency fits
Chosen = dict[str, list[int]]  # choice -> the option of each row


class RisingFit(Fit):
    """The budget for the final networks of a space with `Space.costs_rise`.

    Raises ConfigError for a table of latencies, which cannot hold their costs.
    """

    def __init__(self, budget: Budget, space: Space, recipe: Recipe, device: torch.device):
        if budget.latency_table is not None:
            raise ConfigError(
                f"budget.latency_table: space {space.name} has no latencies of single options; set "
                "it to null, and run on the device itself"
            )
        self.budget, self.space, self.recipe, self.device = budget, space, recipe, device
        self.given = None
        self.final = final_space(space, recipe)
        self.builder = builder_of(self.final)
        self._latencies = {}

    def cost(self, architecture: Architecture) -> dict[str, float]:
        found: dict[str, float] = dict(self.builder.counts(self.final, self._options(architecture)))
        if self.budget.latency_ms is not None:
            found["latency_ms"] = self.latency(architecture).median
        return found

    def check_possible(self, strategy: Any) -> None:
        """Raises ConfigError for a limit outside the costs of the smallest and largest network."""
        low, high = (self.cost(self.network_at(share)) for share in (0, 1))
        for kind, limit in self.budget.limits.items():
            if not low[kind] <= limit <= high[kind]:
                ends = " to ".join(f"{end[kind]:,.10g}" for end in (low, high))
                raise ConfigError(
                    f"budget.{kind}: {shown_amount(kind, limit)} is outside of what networks of "
                    f"this space have, {ends} {NAMES[kind]}; set it between"
                )

    def check(self, architecture: Architecture, what: str) -> None:
        cost = self.cost(architecture)
        for kind in self.exceeded(architecture):
            limit = shown_amount(kind, self.budget.limits[kind])
            raise ConfigError(
                f"budget.{kind}: {what} has {cost[kind]:,.10g} {NAMES[kind]}, above {limit}; raise "
                "the budget, or search within it"
            )

    def network_at(self, share: float) -> Architecture:
        """The architecture with the option of each row at this share of its options, 0 to 1."""
        return self._architecture(
            {
                name: [round(share * (len(row.options) - 1)) for row in choice.rows]
                for name, choice in self.space.choices.items()
            }
        )

    def choose(
        self, strategy: Any, found: Architecture | None, series: Sequence[Architecture]
    ) -> Architecture:
        """The architecture that a greedy search over the gates finds from `found`: options are
        lowered by the least loss of log gates per cost saved until it fits, and then raised where
        there is room and gates are undecided. `found` if it fits and only a latency is limited.

        A searcher is asked `ASKS` times; then the widths of its last answer are lowered.
        """
        counted = self.budget.limits.keys() - {"latency_ms"}
        if found is not None and not counted and not self.exceeded(found):
            return found
        if found is not None:
            gates = {name: table.double().log() for name, table in strategy.gates().items()}
            return self._fitting(self._options(found), gates, found.meta, raises=True)
        for _ in range(ASKS):
            asked: Architecture = strategy.ask()
            if not self.exceeded(asked):
                return asked
            strategy.refuse(asked)
        return self._fitting(self._options(asked), self._ranks(), asked.meta, raises=False)

    def _ranks(self) -> dict[str, Tensor]:
        """Scores by which an option loses as much as it is lower, (R, O)."""
        return {
            name: torch.arange(choice.width).double().expand(len(choice.rows), -1)
            for name, choice in self.space.choices.items()
        }

    def _fitting(
        self, start: Chosen, scores: Mapping[str, Tensor], meta: Mapping[str, Any], *, raises: bool
    ) -> Architecture:
        """The architecture from `start` within all limits. A latency is met by fewer and fewer
        multiply-accumulates."""
        limits = {k: v for k, v in self.budget.limits.items() if k != "latency_ms"}
        for _ in count():
            chosen = self._lowered({name: [*row] for name, row in start.items()}, scores, limits)
            if raises:
                self._raise(chosen, scores, limits)
            architecture = self._architecture(chosen, meta)
            if not self.exceeded(architecture):
                return architecture
            spent = self.builder.counts(self.final, chosen)["macs"]
            if not any(any(row) for row in chosen.values()):
                break
            limits["macs"] = spent * SHRINK
        raise ConfigError("budget: not even the smallest network keeps to it; raise the budget")

    def _over(self, chosen: Chosen, limits: Mapping[str, float]) -> float:
        """By what share the limits are exceeded, in sum."""
        cost = self.builder.counts(self.final, chosen)
        return sum(max(0.0, cost[kind] / limit - 1) for kind, limit in limits.items())

    def _lowered(
        self, chosen: Chosen, scores: Mapping[str, Tensor], limits: Mapping[str, float]
    ) -> Chosen:
        while (over := self._over(chosen, limits)) > 0:
            best: tuple[float, str, int, int] | None = None
            for name, r, now, o in self._moves(chosen, scores):
                chosen[name][r] = o
                saved = over - self._over(chosen, limits)
                chosen[name][r] = now
                lost = max(0.0, float(scores[name][r, now] - scores[name][r, o]))
                lost += TIE * (now - o)
                if saved > 0 and (best is None or lost / saved < best[0]):
                    best = lost / saved, name, r, o
            if best is None:
                break
            chosen[best[1]][best[2]] = best[3]
        return chosen

    def _moves(
        self, chosen: Chosen, scores: Mapping[str, Tensor]
    ) -> list[tuple[str, int, int, int]]:
        """Choice, row, option, and a lower one: the next, and the best of all."""
        found = []
        for name, rows in chosen.items():
            for r, now in enumerate(rows):
                lower = {now - 1, int(scores[name][r, :now].argmax())} if now else set()
                found += [(name, r, now, o) for o in lower]
        return found

    def _raise(
        self, chosen: Chosen, scores: Mapping[str, Tensor], limits: Mapping[str, float]
    ) -> None:
        """Takes larger options that fit, in place: the best first, and of equal ones the smallest.
        They are no worse than what they replace, or have `ENOUGH` of the row's largest gate:
        capacity that a limit leaves is worth more than undecided gates."""
        while True:
            better = [
                (float(scores[name][r, o] - scores[name][r, now]), -o, name, r)
                for name, rows in chosen.items()
                for r, now in enumerate(rows)
                for o in range(now + 1, len(self.space.choices[name].rows[r].options))
                if scores[name][r, o] >= min(scores[name][r, now], _enough(scores[name][r]))
            ]
            if not any(self._fits(chosen, one, limits) for one in sorted(better, reverse=True)):
                return

    def _fits(
        self, chosen: Chosen, change: tuple[float, int, str, int], limits: Mapping[str, float]
    ) -> bool:
        """Makes a change if it keeps the limits; whether it did."""
        _, minus, name, r = change
        now = chosen[name][r]
        chosen[name][r] = -minus
        if self._over(chosen, limits) > 0:
            chosen[name][r] = now
            return False
        return True

    def _options(self, architecture: Architecture) -> Chosen:
        kept = architecture.kept(self.space)
        return {name: [o for (o,) in rows] for name, rows in kept.items()}

    def _architecture(self, chosen: Chosen, meta: Mapping[str, Any] | None = None) -> Architecture:
        names = {
            name: {
                row.name: [row.names[o]]
                for row, o in zip(self.space.choices[name].rows, rows, strict=True)
            }
            for name, rows in chosen.items()
        }
        return Architecture.of(self.space, names, **(meta or {}))


def _enough(scores: Tensor) -> Tensor:
    """The least of log gates that have `ENOUGH` of the largest."""
    return scores.max() + math.log(ENOUGH)


def fit_for(
    budget: Budget,
    space: Space,
    recipe: Recipe,
    device: torch.device,
    *,
    has_losses: bool = False,
) -> Fit:
    """The fit of a space, see `Fit`."""
    if space.costs_rise:
        return RisingFit(budget, space, recipe, device)
    return Fit(budget, space, recipe, device, has_losses=has_losses)
