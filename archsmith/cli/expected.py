"""Expected time and memory of a search, by gradient or by a searcher, and of a retraining.

Measured on a few steps, or only estimated if those would take too much time or memory.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from archsmith.cli.estimate import Estimate, Prepared, foreseen
from archsmith.data.loader import Loader
from archsmith.data.roles import Roles
from archsmith.job import Job
from archsmith.phases.methods import BlackBox, Gradient, method_of
from archsmith.result.network import final_space
from archsmith.result.retrain import Retraining
from archsmith.search.time_budget import LONG, timed, timed_epoch
from archsmith.train.memory_probe import images_for
from archsmith.train.replay import cuda_capture
from archsmith.train.runtime import forget_peak, peak_memory, seed_everything
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from strategies.strategy import Strategy
from supernets.forms import use_form
from supernets.network import final_network

DRAWS = 3  # architectures for which a retraining step is timed
RANGE: dict[str, Callable[[list[float]], float]] = {
    "median": statistics.median,
    "low": min,
    "high": max,
}


def expected_search(job: Job) -> dict[str, Any]:
    """Time and memory of the search."""
    seed_everything(job.seed)
    method = method_of(job)
    if not isinstance(method, Gradient):
        return _expected_scores(job, method)
    strategy, roles = method.strategy, method.roles()
    prepared, images = partial(_search_step, job, roles), _images(roles.train)
    estimate = foreseen(job.space, prepared, images, job.search.micro_batches, job.device)
    forget_peak(job.device)
    if estimate is None:
        step, measuring = _measured_search(job, strategy, roles)
    else:
        step = estimate.seconds
        measuring = _measuring(step["median"], roles)
    loading = _loading(roles.train) * (1 if roles.val is None else 2)
    steps, epochs = len(roles.train), job.search.epochs
    epoch = {name: steps * (value + loading) + measuring for name, value in step.items()}
    if job.search.seconds is not None:
        epochs = max(1, round(job.search.seconds / epoch["median"]))
    return {
        "epochs": epochs,
        "steps_an_epoch": steps,
        "seconds": {name: epochs * value for name, value in epoch.items()},
        **_memory(job, estimate),
    }


def _expected_scores(job: Job, method: BlackBox) -> dict[str, Any]:
    """Time and memory of the scores that a searcher asks for: of trainings, or of one supernet; if
    nothing is trained, only their number."""
    asks, scores = method.searcher.asks, method.scores
    if scores is None:
        return {"scores": 0}
    once, each = scores.steps()
    if not each:
        return {"scores": asks, "score": job.search.score}
    loader = scores.roles().train
    told = _expected_training(job, _some(job.space), loader)
    step, epochs = told.pop("step"), job.search.epochs
    if job.search.seconds is not None:
        fitting = job.search.seconds / step["median"]  # steps
        if once:
            epochs = max(1, round(scores.share * fitting / len(loader)))
            once = epochs * len(loader)
        most = max(1, math.ceil((fitting - once) / each))
        asks = most if asks is None else min(asks, most)
    assert asks is not None, "checked before"
    return {
        "scores": asks,
        "score": job.search.score,
        "epochs": epochs,
        "steps_an_epoch": len(loader),
        "seconds": {name: (once + asks * each) * value for name, value in step.items()},
        **told,
    }


def _measured_search(job: Job, strategy: Strategy, roles: Roles) -> tuple[dict[str, float], float]:
    """Seconds of a step of the real supernet, and of the evaluations after an epoch."""
    net = job.supernet(strategy)
    strategy.micro_batches = job.search.micro_batches
    timing = timed_epoch(net, strategy, roles, time.perf_counter)
    step = {name: timing.step(strategy.warmup, of) for name, of in RANGE.items()}
    return step, timing.measuring


def _measuring(step: float, roles: Roles) -> float:
    """Seconds of the evaluations after an epoch, taking a forward pass as a third of a step."""
    passes = 1 if roles.val is None else 2
    return 2 * (len(roles.statistics) + len(roles.select)) * step / (3 * passes)


def _search_step(job: Job, roles: Roles, space: Space) -> Prepared:
    """Prepares steps of the search in this space, on random images."""
    small, parts = replace(job, space=space), job.search.micro_batches

    def prepared(count: int) -> Callable[[], object]:
        strategy = small.strategy(space)
        net = small.supernet(strategy).train()
        strategy.micro_batches = parts
        train, val = images_for(net, count), images_for(net, count)
        given = None if roles.val is None else val
        return lambda: strategy.step(net, train, given, progress=1.0, move_alphas=True)

    return prepared


def expected_retraining(job: Job) -> dict[str, Any]:
    """Time and memory of the retraining, for the given architecture or for a few random ones."""
    seed_everything(job.seed)
    some = [job.architecture] if job.architecture else _some(job.space)
    recipe = job.recipe
    loader = job.data.training(recipe.batch_size, job.seed, augment=recipe.augment)
    told, steps = _expected_training(job, some, loader), recipe.epochs * len(loader)
    return {
        "epochs": recipe.epochs,
        "steps_an_epoch": len(loader),
        "seconds": {name: steps * value for name, value in told.pop("step").items()},
        **told,
    }


def _some(space: Space) -> Sequence[Architecture]:
    """A few random architectures."""
    draw = RandomSearch(space)
    return [draw.ask() for _ in range(DRAWS)]


def _expected_training(job: Job, some: Sequence[Architecture], loader: Loader) -> dict[str, Any]:
    """Training of the final network: the seconds of a `step` and of its batch, the memory, and of
    how many architectures a step was timed."""
    space = final_space(job.space, job.recipe)

    def prepared(space: Space) -> Prepared:
        return partial(_training_step, job, space, some[0], loader)

    parts, device = job.recipe.micro_batches, job.device
    estimate = foreseen(space, prepared, _images(loader), parts, device)
    loading = _loading(loader)
    forget_peak(device)
    seconds = [[]] if estimate else _retraining_steps(job, space, some, loader)
    every = [value for one in seconds for value in one]
    step = estimate.seconds if estimate else {name: of(every) for name, of in RANGE.items()}
    return {
        "step": {name: value + loading for name, value in step.items()},
        **_memory(job, estimate),
        "architectures": len(seconds),
    }


def _retraining_steps(
    job: Job, space: Space, some: Sequence[Architecture], loader: Loader
) -> list[list[float]]:
    """Seconds of the timed steps per architecture; stops early once they have taken `LONG`."""
    seconds: list[list[float]] = []
    for architecture in some:
        if sum(map(sum, seconds)) > LONG:
            break
        step = _training_step(job, space, architecture, loader, _images(loader))
        untimed = 3 if job.computing.graphs else 1
        seconds.append(timed(step, job.device, time.perf_counter, untimed))
    return seconds


def _training_step(
    job: Job, space: Space, architecture: Architecture, loader: Loader, images: int
) -> Callable[[], object]:
    """A retraining step on random images of the space's size."""
    auxiliary = job.recipe.auxiliary_weight > 0
    net = final_network(space, architecture, auxiliary=auxiliary).to(job.device)
    use_form(net, job.form, job.device, channels_last=job.runtime.channels_last)
    training = Retraining(net, loader, job.recipe)
    if job.computing.graphs:
        training.replay(cuda_capture)
    return partial(training.train_step, images_for(net.train(), images))


def _images(loader: Loader) -> int:
    """Images in a batch."""
    return min(loader.batch_size, len(loader.index))


def _memory(job: Job, estimate: Estimate | None) -> dict[str, Any]:
    """The peak so far, plus the estimate of a step that was not run."""
    step = 0 if estimate is None else estimate.bytes
    return {"peak_memory_bytes": peak_memory(job.device) + step, "measured": estimate is None}


def _loading(loader: Loader) -> float:
    """Median seconds to read and augment a batch."""
    seconds, began = [], time.perf_counter()
    for _ in itertools.islice(loader, 7):
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return statistics.median(seconds[1:] or seconds)
