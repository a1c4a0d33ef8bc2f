"""The two methods of a search: by gradient, which trains a supernet, and by a searcher.

Each has `strategy`, which trains the supernet (None if there is none); `finder`, which makes
architectures: the strategy or the searcher; `settings`, the groups of settings on which its result
depends; `check`, before a run; and `find`, which records results.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from archsmith.data.roles import Roles
from archsmith.errors import ConfigError, NumbersError, configuring
from archsmith.job import Job
from archsmith.parallel.data_parallel import across_processes
from archsmith.parallel.distributed import from_first
from archsmith.phases.run import Run
from archsmith.phases.within_budget import fit_of, fitted, spent
from archsmith.result.network import final_space
from archsmith.result.retrain import retrain
from archsmith.search.black_box import BlackBoxSearch
from archsmith.search.diagnosis import undecided
from archsmith.search.loop import Search
from archsmith.search.measure import Found
from archsmith.search.time_budget import epochs_within
from archsmith.train.epochs import run as run_epochs
from archsmith.train.evaluate import evaluate
from archsmith.train.record import Record
from search_spaces.architecture import Architecture
from search_spaces.settings import setting
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
        with configuring():
            net = job.supernet(strategy)
        across_processes(net)
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
    """A searcher asks for architectures; each is scored by a short training of its network."""

    strategy = None

    def __init__(self, job: Job, searcher: Searcher):
        self.job, self.searcher, self.finder = job, searcher, searcher
        scores = ("retrain",) if searcher.asks else ()
        self.settings: tuple[str, ...] = ("space", "strategy", "search", *scores)

    def roles(self) -> Roles:
        size = self.job.recipe.batch_size
        return self.job.data.loaders(size, one_level=True, seed=self.job.seed)

    def check(self) -> None:
        if self.job.space.has_supernet:  # which holds all options
            with torch.device("meta"), setting("space"):
                check_shapes(supernet(self.job.space, MixedOp))
        if self.searcher.asks:
            self.roles()

    def find(self, run: Run, identity: dict[str, Any], meta: dict[str, Any]) -> Architecture:
        searcher = self.searcher
        fit = fit_of(self.job) if self.job.budget.limits else None

        def ask() -> Architecture:
            return fit.choose(searcher, None, []) if fit else searcher.ask()

        found = ask() if searcher.asks is None else self._best(run, identity, ask)
        found = replace(found, meta={**meta, "epoch": None})
        if fit:
            run.budgeted(spent(fit, found))
        return found

    def _best(
        self, run: Run, identity: dict[str, Any], ask: Callable[[], Architecture]
    ) -> Architecture:
        """The architecture with the best score."""
        self.job.data.to(self.job.device)
        search = BlackBoxSearch(
            self.searcher,
            ask,
            partial(self._score, run, identity),
            seconds=self.job.search.seconds,
            record=run.record,
            checkpoints=run.checkpoints("search", identity),
        )
        with run.measuring("search"):
            best, found = search.run()
        run.results.update(diagnosis={"score": best, "scored": search.told})
        return found

    def _score(
        self, run: Run, identity: Mapping[str, Any], architecture: Architecture, folder: Path
    ) -> float:
        """The accuracy on `select`, whose images are not augmented.

        The final network is trained on the train images for `search.epochs` epochs, by the recipe
        otherwise, but with the data's augmentation.
        """
        job, roles, epochs = self.job, self.roles(), self.job.search.epochs
        warmup = min(epochs, job.recipe.warmup_epochs)
        recipe = replace(job.recipe, epochs=epochs, warmup_epochs=warmup, teacher=None)
        checkpoints = run.checkpoints("candidate", {**identity, "candidate": architecture.identity})
        record = Record(folder)
        try:
            net = retrain(
                final_space(job.space, recipe),
                architecture,
                roles.train,
                recipe,
                seed=job.seed,
                form=job.form,
                device=job.device,
                record=record,
                checkpoints=checkpoints,
            )
            score = evaluate(net, roles.select)["accuracy"]
        except NumbersError as error:  # it would end so again; others may do better
            log.warning("search: an architecture scores 0: %s", error)
            score = 0.0
        finally:
            record.close()
        checkpoints.clear()
        return score
