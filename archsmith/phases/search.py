"""The phases of a search: the search itself, and the ranking of its supernet against a table."""

import logging

from archsmith.data.benchmark import look_up
from archsmith.errors import ConfigError
from archsmith.phases.methods import Gradient, method_of
from archsmith.phases.needs import need
from archsmith.phases.run import Run
from archsmith.search.black_box import scores_in
from archsmith.search.diagnosis import degenerate
from archsmith.search.ranking import agreement, rank_correlation
from archsmith.train.runtime import seed_everything, versions

log = logging.getLogger(__name__)


def search_phase(run: Run) -> None:
    """Writes `architecture.json`, one file per epoch, and drawings of the cells."""
    job = run.job
    if job.architecture is not None:
        raise ConfigError(
            "architecture: task=search finds one, but "
            f"architecture={job.settings['architecture']} was given; "
            "leave it out, or set task=retrain"
        )
    seed_everything(job.seed)
    method = method_of(job)
    identity = run.identity(*method.settings) | method.identity()
    budgeted = {"budget": job.settings["budget"], "final_size": job.recipe.size}
    searched = identity | (budgeted if job.budget.limits else {})
    if not run.finished("search", searched):
        meta = {"strategy": job.names["strategy"], "seed": job.seed}
        version = versions()["archsmith"]
        known = searched if method.strategy is None else identity  # a searcher asks within a budget
        architecture = method.find(run, known, meta | {"version": version})
        run.keep(architecture)
        warning = degenerate(job.space, architecture)
        if warning:
            log.warning("search: %s", warning)
        run.results.update(degenerate=warning)
        run.finish("search", searched)
    if job.benchmark.table:
        found = look_up(job.benchmark, job.folder)
        run.results.update(benchmark=found)
        scores = scores_in(job.folder) if job.search.score != "table" else []
        if len(scores) > 1:  # of a searcher
            true = found["accuracy_by_candidate"][: len(scores)]
            run.results.update(ranking=agreement(scores, true, job.benchmark))


def rank_phase(run: Run) -> None:
    """Kendall's tau between the searched supernet's ranking and the benchmark's table."""
    job = run.job
    need(job, "benchmark.table")
    strategy = method_of(job).strategy
    if strategy is None:
        raise ConfigError(
            f"task=rank: strategy {job.names['strategy']} trains no supernet; take one that does"
        )
    state = run.checkpoints("search", run.identity(*Gradient.settings)).load()
    if state is None or "net" not in state:
        raise ConfigError(
            f"task=rank: no searched supernet in {job.folder}; run task=search first with the "
            "same settings (random trains none)"
        )
    net = job.supernet(strategy)
    net.load_state_dict(state["net"])
    job.data.to(job.device)
    roles = job.data.loaders(job.search.batch_size, one_level=False, seed=job.seed)
    run.results.update(ranking=rank_correlation(net, job.space, roles, job.benchmark, job.seed))
