"""How a searcher's architectures are scored, by the setting `search.score`."""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from archsmith.data.benchmark import accuracy
from archsmith.data.loader import Loader
from archsmith.data.roles import Roles
from archsmith.errors import ConfigError, NumbersError, configuring
from archsmith.job import Job
from archsmith.parallel.averaged import averaged
from archsmith.parallel.data_parallel import across_processes
from archsmith.parallel.distributed import from_first
from archsmith.phases.needs import need
from archsmith.phases.run import Run
from archsmith.result.network import final_space
from archsmith.result.recipe import Recipe
from archsmith.result.retrain import Retraining, retrain
from archsmith.search.measure import discretised_accuracy
from archsmith.search.time_budget import Stopwatch, clock_of, timed
from archsmith.train.checkpoint import clear_phases
from archsmith.train.epochs import run as run_epochs
from archsmith.train.evaluate import evaluate
from archsmith.train.memory_probe import images_for
from archsmith.train.record import Record
from archsmith.train.runtime import seed_everything
from search_spaces.architecture import Architecture
from search_spaces.settings import setting
from search_spaces.tabular import FORMS
from strategies.searchers.random import RandomSearch
from supernets.forms import use_form
from supernets.mixed_op import MixedOp
from supernets.mixture import Mixture
from supernets.network import Network, supernet

log = logging.getLogger(__name__)


class Scores(ABC):
    """Scores architectures by a fraction, higher is better."""

    groups: tuple[str, ...] = ("retrain",)  # of settings that change a score, besides the search's
    share = 0.0  # of `search.seconds`, for `start`
    spent = 0.0  # seconds of `start`, in all processes in which it ran

    def __init__(self, job: Job):
        self.job = job

    def identity(self) -> dict[str, Any]:
        """What else changes a score."""
        return {}

    def check(self) -> None:
        """Raises an error, before a run, if there can be no score."""
        self.roles()

    def roles(self) -> Roles:
        size = self.job.recipe.batch_size
        return self.job.data.loaders(size, one_level=True, seed=self.job.seed)

    def recipe(self, epochs: int | None = None) -> Recipe:
        """The recipe of retraining, for this number of epochs, else `search.epochs`."""
        recipe, epochs = self.job.recipe, epochs or self.job.search.epochs
        warmup = min(epochs, recipe.warmup_epochs)
        return replace(recipe, epochs=epochs, warmup_epochs=warmup, teacher=None)

    def start(self, run: Run, identity: Mapping[str, Any]) -> None:
        """Prepares scores in this run; called once. The random generators may change."""
        self.run, self.of_run = run, identity
        self.job.data.to(self.job.device)

    @abstractmethod
    def steps(self) -> tuple[float, float]:
        """Training steps before the first score, and per score; an evaluated batch is a third."""

    @abstractmethod
    def __call__(self, architecture: Architecture, folder: Path) -> float:
        """The score; what it leaves goes into the folder."""


class Training(Scores):
    """The accuracy on `select`, whose images are not augmented, after a short training.

    The final network is trained on the train images for `search.epochs` epochs, by the recipe
    otherwise, but with the data's augmentation.
    """

    def steps(self) -> tuple[float, float]:
        roles = self.roles()
        return 0, self.job.search.epochs * len(roles.train) + len(roles.select) / 3

    def __call__(self, architecture: Architecture, folder: Path) -> float:
        job, roles, recipe = self.job, self.roles(), self.recipe()
        phase = f"candidate_{architecture.identity}"  # a killed run may go back to the one before
        checkpoints, record = self.run.checkpoints(phase, dict(self.of_run)), Record(folder)
        try:
            net = retrain(
                final_space(job.space, recipe),
                architecture,
                roles.train,
                recipe,
                seed=job.seed,
                computing=job.computing,
                record=record,
                checkpoints=checkpoints,
            )
            score = evaluate(net, roles.select)["accuracy"]
        except NumbersError as error:  # it would end so again; others may do better
            log.warning("search: an architecture scores 0: %s", error)
            score = 0.0
        finally:
            record.close()
        clear_phases(checkpoints.folder, "candidate_*")
        return score


class SinglePaths(Retraining):
    """A supernet in training by paths: each step runs a random architecture of the space.

    Source: Li & Talwalkar 2019, arXiv:1902.07638, section 3.2; Guo et al. 2019, arXiv:1904.00420,
    section 3.
    """

    group, rate, savings = "retrain", "retrain.lr", "fewer space.channels or layers"

    def __init__(self, net: Network, loader: Loader, recipe: Recipe):
        super().__init__(net, loader, recipe)
        self.draw = RandomSearch(net.space)
        self.watch = Stopwatch(clock_of(self.device))

    def result(self) -> Network:
        self.watch.tick()
        return super().result()

    def train_step(
        self, batch: tuple[Tensor, Tensor]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        self.path = Mixture.of(self.draw.ask(), self.net.space, self.device)
        return super().train_step(batch)

    def output(self, x: Tensor) -> Any:
        return self.net(x, self.path)

    def prepared(self, images: int) -> Callable[[], object]:
        copied = SinglePaths(copy.deepcopy(self.net).train(), self.loader, self.recipe)
        batch = images_for(copied.net, images)
        return lambda: copied.train_step(batch)

    def state_dict(self) -> dict[str, Any]:
        self.watch.tick()
        return super().state_dict() | {"draw": self.draw.state_dict(), "spent": self.watch.spent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.draw.load_state_dict(state["draw"])
        self.watch.go_on(float(state.get("spent", 0.0)))  # older checkpoints lack it
        super().load_state_dict(state)


class Inherited(Scores):
    """The accuracy on `select` with the weights of a supernet, and re-estimated statistics.

    The supernet is trained by `SinglePaths` on the train images for `search.epochs` epochs by the
    recipe, at the space's size; auxiliary head, drop-path and moving average are left out. With
    `search.seconds`, for as many epochs as fit into half of them: the other half is for scores.
    """

    share = 0.5  # our choice

    def check(self) -> None:
        if not self.job.space.has_supernet:
            raise ConfigError(
                f"search.score: space {self.job.space.name} has no supernet whose weights could be "
                "inherited; set search.score=training"
            )
        super().check()

    def start(self, run: Run, identity: Mapping[str, Any]) -> None:
        super().start(run, identity)
        job = self.job
        seed_everything(job.seed)
        net = supernet(job.space, MixedOp).to(job.device)
        with configuring(), setting("runtime"):
            use_form(net, job.form, job.device, channels_last=job.runtime.channels_last)
        across_processes(net)
        epochs = job.search.epochs
        if job.search.seconds is not None:  # timed once: a resumed search keeps its epochs
            within = self.share * job.search.seconds
            known = run.results.fields["search_epochs"]
            epochs = known or from_first(epochs_of(self._training(net, epochs), within))
            log.info("supernet: %d epochs fit in half of search.seconds", epochs)
        run.results.update(search_epochs=epochs)
        training = self._training(net, epochs)
        self.net = run_epochs(training, run.record, run.checkpoints("supernet", dict(identity)))
        self.spent = training.watch.spent

    def _training(self, net: Network, epochs: int) -> SinglePaths:
        plain = replace(self.recipe(epochs), auxiliary_weight=0.0, drop_path=0.0, ema=None)
        training = SinglePaths(net, self.roles().train, plain)
        training.gradients = averaged()
        return training

    def steps(self) -> tuple[float, float]:
        roles = self.roles()
        each = (len(roles.statistics) + len(roles.select)) / 3
        return self.job.search.epochs * len(roles.train), each

    def __call__(self, architecture: Architecture, folder: Path) -> float:
        return discretised_accuracy(self.net, architecture, self.roles())


def epochs_of(training: SinglePaths, seconds: float) -> int:
    """The number of epochs of a training that take about this many seconds, at least 1. Random
    state is not changed; the time to read and augment images is not included."""
    size, clock = min(training.loader.batch_size, len(training.loader.index)), training.watch.clock
    devices = [training.device] if training.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        took = timed(training.prepared(size), training.device, clock)
    return max(1, round(seconds / (fmean(took) * len(training.loader))))


class Table(Scores):
    """The accuracy in the benchmark's table; no image is read."""

    groups = ()

    def check(self) -> None:
        need(self.job, "benchmark.table")
        if self.job.space.name not in FORMS:
            raise ConfigError(
                f"search.score: tables are of spaces {', '.join(FORMS)}, found "
                f"space={self.job.space.name}; set one of these, or search.score=inherited"
            )
        self.job.benchmark.read()

    def identity(self) -> dict[str, Any]:
        return {"benchmark": self.job.benchmark.identity()}

    def start(self, run: Run, identity: Mapping[str, Any]) -> None:
        self.check()
        self.table = self.job.benchmark.read()

    def steps(self) -> tuple[float, float]:
        return 0, 0

    def __call__(self, architecture: Architecture, folder: Path) -> float:
        return accuracy(self.table, architecture) / 100


SCORES: dict[str, type[Scores]] = {"table": Table, "inherited": Inherited, "training": Training}
