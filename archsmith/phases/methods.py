"""The two methods of a search: by gradient, which trains a supernet, and by a searcher.

Each has `strategy`, which trains the supernet (None if there is none); `finder`, which makes
architectures: the strategy or the searcher; `settings`, the groups of settings on which its result
depends, and `identity`, what else it depends on; `check`, before a run; and `find`, which records
results.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from archsmith.data.roles import Roles
from archsmith.errors import ConfigError, configuring
from archsmith.job import Job
from archsmith.parallel.averaged import averaged
from archsmith.parallel.data_parallel import across_processes
from archsmith.parallel.distributed import from_first
from archsmith.phases.run import Run
from archsmith.phases.scores import SCORES, Scores
from archsmith.phases.within_budget import fit_of, fitted, spent
from archsmith.search.black_box import BlackBoxSearch
from archsmith.search.diagnosis import undecided
from archsmith.search.fronts import of_series, write_fronts
from archsmith.search.loop import Search
from archsmith.search.measure import Found
from archsmith.search.time_budget import clock_of, epochs_within
from archsmith.train.epochs import run as run_epochs
from archsmith.train.random_state import random_state, set_random_state
from search_spaces.architecture import Architecture
from search_spaces.settings import setting
from strategies.preference.devices import DevicePreference
from strategies.searchers.on_devices import OnDevices
from strategies.searchers.searcher import Searcher
from strategies.strategy import Strategy
from supernets.costs import check_shapes
from supernets.mixed_op import MixedOp
from supernets.network import supernet

log = logging.getLogger(__name__)


def method_of(job: Job) -> "Gradient | BlackBox":
    """The method of the configured strategy: nothing else asks which kind it is.

    Raises ConfigError for a strategy that trains a supernet, in a space without one.
    """
    with setting("strategy"):
        found = job.strategy(job.space)
    if isinstance(found, Searcher):
        return BlackBox(job, found)
    if not job.space.has_supernet:
        raise ConfigError(
            f"space: {job.space.name} has no supernet, which strategy {job.names['strategy']} "
            "trains; set strategy=random or another searcher, or another space"
        )
    return Gradient(job, found)


class Gradient:
    """A strategy trains a supernet."""

    settings: tuple[str, ...] = ("space", "strategy", "search")

    def __init__(self, job: Job, strategy: Strategy):
        self.job, self.strategy, self.finder = job, strategy, strategy

    def identity(self) -> dict[str, Any]:
        return {}

    def roles(self) -> Roles:
        """The loaders; there are val images only if alphas are trained on images of their own."""
        one_level = not self.strategy.update.two_level
        size = self.job.search.batch_size
        return self.job.data.loaders(size, one_level=one_level, seed=self.job.seed)

    def check(self) -> None:
        with torch.device("meta"):
            net = self.job.network(self.strategy)
        with setting("space"):
            check_shapes(net)
        self.roles()

    def find(self, run: Run, identity: dict[str, Any], meta: dict[str, Any]) -> Architecture:
        with run.measuring("search"):
            found = self._trained(run, identity, meta)
        if isinstance(preference := self.strategy.preference, DevicePreference):
            folder, costs = self.job.folder, preference.costs
            write_fronts(folder, self.job.space, costs, of_series(folder, costs), meta)
        run.results.fields["searched_costs"] = None  # of an earlier search
        run.results.update(
            supernet_accuracy=found.supernet_accuracy,
            discretised_accuracy=found.discretised_accuracy,
            diagnosis=found.metrics,
            searched_costs=self.strategy.costs_of(found.architecture) or None,
        )
        return found.architecture

    def _trained(self, run: Run, identity: dict[str, Any], meta: dict[str, Any]) -> Found:
        """Trains the supernet; the result keeps to the budget."""
        job, strategy, settings = self.job, self.strategy, self.job.search
        job.data.to(job.device)
        if settings.seconds is not None and strategy.pruning and strategy.pruning.fixed_length:
            raise ConfigError(
                f"search.seconds: {type(strategy.pruning).__name__} must know the number of epochs "
                "from the start; set search.epochs and search.seconds=null"
            )
        with configuring():
            net = job.supernet(strategy)
        across_processes(net)
        if strategy.averages:
            strategy.gradients = averaged(strategy.gradients)
        roles = self.roles()
        epochs: float = settings.epochs
        if settings.seconds is not None:  # timed once: a resumed search keeps its number of epochs
            timed = run.results.fields["search_epochs"]
            epochs = timed or from_first(epochs_within(settings.seconds, net, strategy, roles))
        run.results.update(search_epochs=epochs)
        task = Search(net, strategy, roles, settings, record=run.record, meta=meta, epochs=epochs)
        found: Found = run_epochs(task, run.record, run.checkpoints("search", identity))
        entropy = found.metrics["gate_entropy"]
        doubt = undecided(strategy.space, strategy.alive, found.architecture, entropy)
        if strategy.result() is not None:  # the entropy is that of the last epoch
            doubt = None
        if doubt:
            log.warning("search: %s", doubt)
        run.results.update(undecided=doubt)
        if settings.seconds is not None:
            run.results.update(search_epochs=task.epoch)
        if job.budget.limits:
            found, told = fitted(job, found, net, strategy, roles)
            run.budgeted(told)
        return found


class BlackBox:
    """A searcher asks for architectures; each is scored as `search.score` says."""

    strategy = None

    def __init__(self, job: Job, searcher: Searcher):
        self.job, self.searcher, self.finder = job, searcher, searcher
        scored = searcher.asks is not None or job.search.score != "training"
        self.scores = SCORES[job.search.score](job) if scored else None
        groups = self.scores.groups if self.scores else ()
        self.settings: tuple[str, ...] = ("space", "strategy", "search", *groups)

    def identity(self) -> dict[str, Any]:
        return self.scores.identity() if self.scores else {}

    def check(self) -> None:
        if self.job.space.has_supernet:  # which holds all options
            with torch.device("meta"), setting("space"):
                check_shapes(supernet(self.job.space, MixedOp))
        if self.scores:
            self._check_end()
            self.scores.check()

    def _check_end(self) -> None:
        """Raises ConfigError for scores that neither a number nor a time ends. Reading a table
        takes no time."""
        score = self.job.search.score
        by_time = score != "table"
        if self.searcher.asks is None and not (by_time and self.job.search.seconds):
            raise ConfigError(
                f"strategy.asks: null, so search.score={score} would score without end; set "
                f"strategy.asks{' or search.seconds' * by_time}"
            )

    def find(self, run: Run, identity: dict[str, Any], meta: dict[str, Any]) -> Architecture:
        searcher = self.searcher
        fit = fit_of(self.job) if self.job.budget.limits else None

        def ask() -> Architecture:
            return fit.choose(searcher, None, []) if fit else searcher.ask()

        found = self._best(self.scores, run, identity, ask) if self.scores else ask()
        if isinstance(searcher, OnDevices) and self.scores:
            folder, space = self.job.folder, self.job.space
            write_fronts(folder, space, searcher.costs, searcher.known, meta)
        found = replace(found, meta={**meta, "epoch": None})
        if fit:
            run.budgeted(spent(fit, found))
        return found

    def _best(
        self, scores: Scores, run: Run, identity: dict[str, Any], ask: Callable[[], Architecture]
    ) -> Architecture:
        """The architecture with the best score."""
        with run.measuring("search"):
            before = random_state()
            scores.start(run, identity)
            set_random_state(before)
            search = BlackBoxSearch(
                self.searcher,
                ask,
                scores,
                seconds=self.job.search.seconds,
                record=run.record,
                checkpoints=run.checkpoints("search", identity),
                spent=scores.spent,
                clock=clock_of(self.job.device),
            )
            best, found = search.run()
        run.results.update(diagnosis={"score": best, "scored": search.told})
        return found
