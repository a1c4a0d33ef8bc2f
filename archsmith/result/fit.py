"""Keeps an architecture within a budget, at the size of the retraining."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from archsmith.errors import ConfigError
from archsmith.result.latency import Latency, candidate_latencies, measure_latency
from archsmith.result.limits import NAMES, Budget, shown_amount
from archsmith.result.network import final_space
from archsmith.result.recipe import Recipe
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.discretisation.constrained import cheapest
from strategies.discretisation.decisions import Structure
from supernets.device_cost import DeviceCost, device_cost
from supernets.final_costs import Cost, final_costs
from supernets.network import final_network

SLACK = 1e-9  # of a limit, relative: sums in another order
HALVINGS = 6  # bisection steps in the search for a latency that just fits


class Fit:
    """The budget for the final networks of a space and a recipe on a device.

    The latency of an architecture is measured once, or is that of the budget's table. The random
    generators are left unchanged.

    has_losses: whether the search may add a loss to that of its val images; said where it helps.

    Raises ConfigError where the cost of an architecture is no sum over its options, and for a table
    that does not fit.
    """

    def __init__(
        self,
        budget: Budget,
        space: Space,
        recipe: Recipe,
        device: torch.device,
        *,
        has_losses: bool = False,
    ):
        self.budget, self.space, self.recipe, self.device = budget, space, recipe, device
        self.final = final_space(space, recipe)
        if not space.costs_add_up:
            helps = has_losses and budget.macs is not None
            band = ", and set strategy/losses=macs_band" if helps else ""
            raise ConfigError(
                f"budget: costs of options do not add up in space {space.name}; leave the budget "
                f"out{band}"
            )
        if set(self.final.choices) != set(space.choices):
            raise ConfigError(
                f"budget: the {len(space.choices)} cells of the search are repeated in a network "
                f"of {len(self.final.choices)}, whose costs are not known per candidate; set "
                "retrain.layers=null"
            )
        self.costs = final_costs(self.final)
        self.given = self._given()
        if self.given is not None and self.given.adds_up:
            self.costs["latency_ms"] = self.given.options
        self._latencies: dict[str, Latency] = {}

    def _given(self) -> DeviceCost | None:
        """The latencies of the budget's table; None if there is no limit on them, or no table."""
        budget = self.budget
        if budget.latency_ms is None or budget.latency_table is None:
            return None
        try:
            return device_cost(self.final, budget.latency_table, budget.latency_device)
        except ValueError as error:  # "table: ..." or "device: ..."
            raise ConfigError(f"budget.latency_{error}") from error

    def cost(self, architecture: Architecture) -> dict[str, float]:
        """Kind -> cost of an architecture's network; the latency only if it is limited."""
        found: dict[str, float] = {
            kind: round(self.costs[kind].of(architecture, self.final))
            for kind in ("params", "macs")
        }
        if self.given is not None:
            found["latency_ms"] = self.given.exact(architecture)
        elif self.budget.latency_ms is not None:
            found["latency_ms"] = self.latency(architecture).median
        return found

    def latency(self, architecture: Architecture) -> Latency:
        """The measured latency of an architecture's network."""
        key = architecture.identity
        if key not in self._latencies:
            with torch.random.fork_rng(devices=[]):
                net = final_network(self.final, architecture)
            self._latencies[key] = measure_latency(net, self.device, self.budget.latency_batch)
        return self._latencies[key]

    @cached_property
    def guide(self) -> Cost:
        """The latency of each candidate by itself, or by the model of the given table."""
        if self.given is not None:  # a model may have options that cost less than none
            tables = self.given.options.tables
            return Cost(0.0, {name: table.clamp_min(0.0) for name, table in tables.items()})
        with torch.random.fork_rng(devices=[]):
            return candidate_latencies(self.final, self.device, self.budget.latency_batch)

    def exceeded(self, architecture: Architecture) -> list[str]:
        """The kinds of cost by which an architecture exceeds the budget."""
        cost, limits = self.cost(architecture), self.budget.limits
        return [kind for kind, limit in limits.items() if cost[kind] > limit * (1 + SLACK)]

    def check_possible(self, strategy: Any) -> None:
        """Raises ConfigError if no architecture that the strategy can find fits."""
        structures = _known(strategy.structures(), self.space)

        def least(kind: str, recipe: Recipe) -> float:
            fit = self._at(recipe)
            return fit.cost(fit.cheapest(kind, structures))[kind]

        for kind, limit in self.budget.limits.items():
            if least(kind, self.recipe) > limit * (1 + SLACK):
                what = "the smallest network of this space and recipe"
                raise self._refusal(kind, what, partial(least, kind))
        if None not in strategy.structures().values() and strategy.within(*self._counted) is None:
            limits = " ".join(
                f"budget.{k}={shown_amount(k, v)}" for k, v in self.budget.limits.items()
            )
            raise ConfigError(
                f"{limits}: each can be met, but no architecture was found that meets all "
                "(random draws a few thousand); raise one of them, or set fewer retrain.channels"
            )

    def cheapest(self, kind: str, structures: Mapping[str, Structure]) -> Architecture:
        """The cheapest architecture; latency is estimated by the sum over its candidates."""
        counted = kind in self.costs
        table = self.costs[kind] if counted else self.guide  # which may have to be measured
        return Architecture.of(self.space, cheapest(self.space.choices, structures, table.tables))

    def check(self, architecture: Architecture, what: str) -> None:
        """Raises ConfigError if this architecture does not fit."""
        for kind in self.exceeded(architecture):

            def cost(recipe: Recipe, kind: str = kind) -> float:
                return self._at(recipe).cost(architecture)[kind]

            raise self._refusal(kind, what, cost)

    def _at(self, recipe: Recipe) -> "Fit":
        """The same budget at the sizes of a recipe."""
        same = recipe == self.recipe
        return self if same else Fit(self.budget, self.space, recipe, self.device)

    def _refusal(self, kind: str, what: str, cost: Callable[[Recipe], float]) -> ConfigError:
        limit, found = self.budget.limits[kind], cost(self.recipe)
        has = f"takes {found:.3g} ms" if kind == "latency_ms" else f"has {found:,.0f} {NAMES[kind]}"
        tabled = kind == "latency_ms" and self.given is not None  # of networks of this size
        sizes = [] if tabled else self._sizes_within(limit, cost)
        others = f"{' or '.join(sizes)}, or " if sizes else ""
        return ConfigError(
            f"budget.{kind}: {what} {has}, above {shown_amount(kind, limit)}; set {others}"
            f"budget.{kind}={shown_amount(kind, found)}"
        )

    def _sizes_within(self, limit: float, cost: Callable[[Recipe], float]) -> list[str]:
        """The settings with the largest recipe sizes at which `cost` is within the limit."""
        found = []
        for name in ("channels", "layers"):
            sizes: Sequence[Any] = range(1, self.final.settings[name])
            recipes = [replace(self.recipe, **{name: size}) for size in sizes]
            possible = [recipe for recipe in recipes if self._is_possible(recipe)]
            count = bisect_left(possible, True, key=lambda recipe: cost(recipe) > limit)
            found += [f"retrain.{name}={getattr(one, name)}" for one in possible[:count][-1:]]
        return found

    def _is_possible(self, recipe: Recipe) -> bool:
        """Whether the space exists at this size, with the same choices."""
        try:
            final_space(self.space, recipe)
        except ConfigError:
            return False
        return True

    def choose(
        self, strategy: Any, found: Architecture | None, series: Sequence[Architecture]
    ) -> Architecture:
        """`found` if it fits, else the strategy's best architecture that fits.

        For a strategy that prunes instead of choosing by gates, the first of `series` that fits.

        found: the strategy's choice without a budget; None if it draws at random.

        Raises:
            ConfigError: none of them fits.
        """
        chooses = None not in strategy.structures().values()
        read = [] if found is None else [found]
        for architecture in read if chooses else [*series, *read]:
            if not self.exceeded(architecture):
                return architecture
        chosen = self._chosen(strategy, {} if found is None else found.meta)
        if chosen is None:
            raise ConfigError(self._none_fits([*read, *series]))
        return chosen

    @property
    def _counted(self) -> tuple[list[Mapping[str, Tensor]], list[float]]:
        """Cost tables of the limited kinds, except latency, and the limits for the candidates."""
        kinds = [kind for kind in self.costs if kind in self.budget.limits]
        limits = [self.budget.limits[kind] - self.costs[kind].fixed for kind in kinds]
        return [self.costs[kind].tables for kind in kinds], limits

    def _chosen(self, strategy: Any, meta: Mapping[str, Any]) -> Architecture | None:
        tables, limits = self._counted
        best = strategy.within(tables, limits, **meta)
        if self.budget.latency_ms is None or best is None or not self.exceeded(best):
            return best
        # Sums of candidate latencies only guide: the limit applies to the whole network.
        structures = _known(strategy.structures(), self.space)
        least = self.cheapest("latency_ms", structures)
        low, high = (self.guide.of(one, self.final) for one in (least, best))
        kept = None
        for guided in [low * (1 + 1e-6)] + HALVINGS * [None]:
            middle = guided or (low + high) / 2
            one = strategy.within([*tables, self.guide.tables], [*limits, middle], **meta)
            if one is not None and self.exceeded(one):
                high = middle
            else:
                low, kept = middle, one or kept
        return kept

    def _none_fits(self, tried: Sequence[Architecture]) -> str:
        parts = []
        for kind, limit in self.budget.limits.items():
            costs = [self.cost(architecture)[kind] for architecture in tried]
            least = f", the smallest found has {shown_amount(kind, min(costs))}" if costs else ""
            parts.append(f"budget.{kind}={shown_amount(kind, limit)}{least}")
        return (
            f"{'; '.join(parts)}: no architecture that the search can end with fits; set fewer "
            "retrain.channels or retrain.layers, raise the budget, or search longer (a pruning "
            "strategy keeps smaller ones on its way); with resume=force the search is not repeated"
        )


def _known(structures: Mapping[str, Structure | None], space: Space) -> dict[str, Structure]:
    """The structures; one candidate per node for a rule that does not choose by gates."""
    one = {n: Structure(dict.fromkeys(c.targets, 1), False) for n, c in space.choices.items()}
    return {name: found or one[name] for name, found in structures.items()}


def given_up(
    space: Space, found: Architecture, chosen: Architecture, gates: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """The rows in which two architectures differ, with the kept candidates and their gates."""

    def kept(architecture: Architecture, name: str, r: int) -> dict[str, float]:
        row = space.choices[name].rows[r]
        table = gates[name][r].tolist()
        options = architecture.choices[name].get(row.name, ())
        return {option: round(table[row.names.index(option)], 6) for option in options}

    return [
        {"choice": name, "row": row.name, "was": was, "is": now}
        for name, choice in space.choices.items()
        for r, row in enumerate(choice.rows)
        if (was := kept(found, name, r)).keys() != (now := kept(chosen, name, r)).keys()
    ]
