"""The phases with a supernet: the search, and the ranking of its supernet against a table."""

import logging
from typing import Any

from archsmith.data.benchmark import look_up
from archsmith.errors import ConfigError, configuring
from archsmith.parallel.data_parallel import across_processes
from archsmith.parallel.distributed import from_first
from archsmith.phases.needs import need
from archsmith.phases.run import Run
from archsmith.phases.within_budget import drawn, fitted
from archsmith.search.diagnosis import degenerate
from archsmith.search.loop import search as run_search
from archsmith.search.measure import Found
from archsmith.search.ranking import rank_correlation
from archsmith.search.time_budget import epochs_within
from archsmith.search.undecided import undecided
from archsmith.train.runtime import seed_everything, versions
from search_spaces.architecture import Architecture

log = logging.getLogger(__name__)


def search(run: Run) -> None:
    """Writes `architecture.json`, one file per epoch, and drawings of the cells."""
    job = run.job
    identity = run.identity("space", "strategy", "search")
    searched = identity | _budget_identity(run)
    if job.architecture is not None:
        raise ConfigError(
            "architecture: task=search finds one, but "
            f"architecture={job.settings['architecture']} was given; "
            "leave it out, or set task=retrain"
        )
    if not run.finished("search", searched):
        architecture = _found(run, identity)
        run.keep(architecture)
        warning = degenerate(job.space, architecture)
        if warning:
            log.warning("search: %s", warning)
        run.results.update(degenerate=warning)
        run.finish("search", searched)
    if job.benchmark.table:
        run.results.update(benchmark=look_up(job.benchmark, job.folder))


def _found(run: Run, identity: dict[str, Any]) -> Architecture:
    job = run.job
    seed_everything(job.seed)
    strategy = job.strategy(job.space)
    meta = {
        "strategy": job.names["strategy"],
        "seed": job.seed,
        "version": versions()["archsmith"],
    }
    if strategy.searches:
        with run.measuring("search"):
            found = _train_supernet(run, strategy, identity, meta)
        run.results.update(
            supernet_accuracy=found.supernet_accuracy,
            discretised_accuracy=found.discretised_accuracy,
            diagnosis=found.metrics,
        )
        return found.architecture
    meta["epoch"] = None
    if not job.budget.limits:
        return strategy.architecture(**meta)
    architecture, told = drawn(job, strategy, meta)
    run.budgeted(told)
    return architecture


def _train_supernet(
    run: Run, strategy: Any, identity: dict[str, Any], meta: dict[str, Any]
) -> Found:
    job = run.job
    job.data.to(job.device)
    with configuring():
        net = job.supernet(strategy)
    across_processes(net)
    one_level = not strategy.update.two_level
    roles = job.data.loaders(job.search.batch_size, one_level=one_level, seed=job.seed)
    settings = job.search
    epochs: float = settings.epochs
    if settings.seconds is not None:  # timed only once: a resumed search keeps its number of epochs
        timed = run.results.fields["search_epochs"]
        epochs = timed or from_first(epochs_within(settings.seconds, net, strategy, roles))
    run.results.update(search_epochs=epochs)
    found = run_search(
        net,
        strategy,
        roles,
        settings,
        folder=job.folder,
        record=run.record,
        checkpoints=run.checkpoints("search", identity),
        meta=meta,
        epochs=epochs,
    )
    doubt = undecided(
        strategy.space, strategy.alive, found.architecture, found.metrics["gate_entropy"]
    )
    if doubt:
        log.warning("search: %s", doubt)
    run.results.update(undecided=doubt)
    if settings.seconds is not None:
        run.results.update(search_epochs=found.architecture.meta["epoch"] + 1)
    if job.budget.limits:
        found, told = fitted(job, found, net, strategy, roles)
        run.budgeted(told)
    return found


def _budget_identity(run: Run) -> dict[str, Any]:
    """What a search with a budget also depends on: the budget and the final network's size."""
    if not run.job.budget.limits:
        return {}
    return {"budget": run.job.settings["budget"], "final_size": run.job.recipe.size}


def rank(run: Run) -> None:
    """Kendall's tau between the searched supernet's ranking and the benchmark's table."""
    job = run.job
    need(job, "benchmark.table")
    state = run.checkpoints("search", run.identity("space", "strategy", "search")).load()
    if state is None:
        raise ConfigError(
            f"task=rank: no searched supernet in {job.folder}; run task=search first with the "
            "same settings (random trains none)"
        )
    net = job.supernet(job.strategy(job.space))
    net.load_state_dict(state["net"])
    job.data.to(job.device)
    roles = job.data.loaders(job.search.batch_size, one_level=False, seed=job.seed)
    run.results.update(ranking=rank_correlation(net, job.space, roles, job.benchmark, job.seed))
