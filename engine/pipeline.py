"""The phases of a run, each skipped when its folder holds it: search, retrain, evaluate, export."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.benchmark import Benchmark, look_up, rank_correlation
from engine.checkpoint import Checkpoints, write_atomically
from engine.data import Data
from engine.diagnosis import degenerate
from engine.drawing import cell_svg
from engine.errors import ConfigError, configuring
from engine.evaluate import evaluate
from engine.export import export
from engine.record import Record, Results
from engine.retrain import Recipe, retrain
from engine.run_folder import RunFolder
from engine.runtime import describe_device, measured, seed_everything, versions
from engine.search import SearchSettings, search
from engine.weights import load_weights, read_metadata, save_weights
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.costs import macs, parameters
from supernets.network import Network, final_network, supernet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """All a run needs, as plain objects.

    `space` has the shapes of the data; `strategy` makes a strategy for a space; `settings` is the
    resolved configuration, by which finished phases and checkpoints are recognised. `architecture`
    is given where the run does not search, with the `weights` file that belongs to it, if any.
    """

    names: dict[str, str]  # strategy, space, data: the chosen names
    settings: dict[str, Any]
    folder: Path
    resume: bool
    seed: int
    device: torch.device
    data: Data
    space: Space
    strategy: Callable[[Space], Any]
    search: SearchSettings
    recipe: Recipe
    formats: Sequence[str]
    benchmark: Benchmark
    architecture: Architecture | None = None
    weights: Path | None = None


class Pipeline:
    """Runs a job's phases into its folder, but those finished there under the same settings."""

    def __init__(self, job: Job):
        self.job = job
        self.run = RunFolder(job.folder, resume=job.resume)
        if not job.resume:
            (job.folder / "results.json").unlink(missing_ok=True)
            (job.folder / "metrics.jsonl").unlink(missing_ok=True)
        self.results = Results(job.folder)
        self.record = Record(job.folder)
        self.results.update(
            **job.names,
            seed=job.seed,
            device=describe_device(job.device),
            versions=versions(),
            data_fingerprint=job.data.fingerprint(),
        )

    # -- search
    # -------------------------------------------------------------------------------------------

    def search(self) -> None:
        """Leaves `architecture.json`, one file an epoch, and drawings of the cells."""
        job = self.job
        identity = self._identity("space", "strategy", "search")
        if job.architecture is not None:
            raise ConfigError(
                "architecture: task=search finds one, but "
                f"architecture={job.settings['architecture']} was given; "
                "leave it out, or set task=retrain"
            )
        if self.run.done("search", identity):
            log.info("search: finished before, in %s", job.folder)
        else:
            self._search(identity)
            self.run.finish("search", identity)
        if job.benchmark.table:
            self.results.update(benchmark=look_up(job.benchmark, job.folder))

    def _search(self, identity: dict[str, Any]) -> None:
        job = self.job
        seed_everything(job.seed)
        strategy = job.strategy(job.space)
        meta = {
            "strategy": job.names["strategy"],
            "seed": job.seed,
            "version": versions()["archsmith"],
        }
        if strategy.searches:
            with measured(job.device) as cost:
                found = self._train_supernet(strategy, identity, meta)
            architecture = found.architecture
            self.results.update(
                supernet_accuracy=found.supernet_accuracy,
                discretised_accuracy=found.discretised_accuracy,
                diagnosis=found.metrics,
            )
            self._cost("search", cost)
        else:
            architecture = strategy.architecture(**meta, epoch=None)
        self._keep(architecture)
        warning = degenerate(job.space, architecture)
        if warning:
            log.warning("search: %s", warning)
        self.results.update(degenerate=warning)

    def _train_supernet(self, strategy: Any, identity: dict[str, Any], meta: dict[str, Any]) -> Any:
        job = self.job
        job.data.to(job.device)
        with configuring():
            net = supernet(job.space, strategy.mixed_op).to(job.device)
            strategy.setup(net, job.device)
        checkpoints = Checkpoints(job.folder / "checkpoints", "search", identity)
        if not job.resume:
            checkpoints.clear()
        return search(
            net,
            strategy,
            job.data.loaders(
                job.search.batch_size, one_level=not strategy.update.two_level, seed=job.seed
            ),
            job.search,
            folder=job.folder,
            record=self.record,
            checkpoints=checkpoints,
            meta=meta,
        )

    def _keep(self, architecture: Architecture) -> None:
        architecture.save(self.job.folder / "architecture.json")
        for group, cell in self.job.space.groups.items():
            svg = cell_svg(cell, architecture.choices[group], f"{group} cell")
            write_atomically(self.job.folder / f"cell_{group}.svg", svg.encode())

    def rank(self) -> None:
        """Kendall's tau between the searched supernet's ranking and the benchmark's table."""
        job = self.job
        identity = self._identity("space", "strategy", "search")
        if not job.benchmark.table:
            raise ConfigError("benchmark.table: task=rank compares with one; set it to a CSV file")
        state = Checkpoints(job.folder / "checkpoints", "search", identity).load()
        if state is None:
            raise ConfigError(
                f"task=rank: no searched supernet in {job.folder}; run task=search first with the "
                "same settings (random trains none)"
            )
        net = supernet(job.space, job.strategy(job.space).mixed_op).to(job.device)
        net.load_state_dict(state["net"])
        job.data.to(job.device)
        roles = job.data.loaders(job.search.batch_size, one_level=False, seed=job.seed)
        found = rank_correlation(net, job.space, roles, job.benchmark, job.seed)
        self.results.update(ranking=found)

    # -- the final network
    # --------------------------------------------------------------------------------

    def architecture(self) -> Architecture:
        """The given architecture, or the one this run found. Raises ConfigError without one."""
        if self.job.architecture is not None:
            return self.job.architecture
        path = self.job.folder / "architecture.json"
        if not path.is_file():
            raise ConfigError(
                "architecture: this task needs one; set architecture=<file, run directory or "
                "published name>, "
                "or run task=search first with the same settings"
            )
        return Architecture.load(path)

    def retrain(self) -> None:
        """Leaves `weights.safetensors` of the final network, trained on all training images."""
        job, architecture = self.job, self.architecture()
        identity = self._identity("retrain") | {"architecture": architecture.identity}
        if self.run.done("retrain", identity):
            log.info("retrain: finished before, in %s", job.folder)
            return
        self._keep(architecture)
        space = final_space(job.space, job.recipe)
        seed_everything(job.seed)
        job.data.to(job.device)
        checkpoints = Checkpoints(job.folder / "checkpoints", "retrain", identity)
        if not job.resume:
            checkpoints.clear()
        with measured(job.device) as cost:
            net = retrain(
                space,
                architecture,
                job.data,
                job.recipe,
                folder=job.folder,
                device=job.device,
                seed=job.seed,
                record=self.record,
                checkpoints=checkpoints,
            )
        about = {
            "architecture": json.loads(architecture.to_json()),
            "network": {key: space.settings[key] for key in sorted(space.settings)},
            "data": {
                "name": job.data.name,
                "classes": list(job.data.classes),
                **normalisation(job.data),
            },
            "recipe": asdict(job.recipe),
        }
        save_weights(net, job.folder / "weights.safetensors", {"archsmith": json.dumps(about)})
        self.results.update(
            parameters=parameters(net),
            macs=macs(net),
            architecture=architecture.identity,
            test_accuracy=None,
        )
        self._cost("retrain", cost)
        self.run.finish("retrain", identity)

    def final(self) -> tuple[Network, Architecture, dict[str, Any], Path]:
        """The trained final network, its architecture, what its weights say of themselves, and
        their file.

        Raises:
            ConfigError: there are no weights, or they do not fit the data.
        """
        job, architecture = self.job, self.architecture()
        path = job.weights
        if path is None and job.architecture is None:
            path = job.folder / "weights.safetensors"
        if path is None or not path.is_file():
            raise ConfigError(
                "weights: this task needs a trained network; set architecture=<run directory "
                "that was retrained>, "
                "or weights=<file> beside architecture=<file>"
            )
        about = json.loads(read_metadata(path).get("archsmith", "{}"))
        if "network" not in about:
            raise ConfigError(
                f"{path}: not weights of a final network; expected a file written by task=retrain"
            )
        if Architecture.parse(about["architecture"], str(path)) != architecture:
            raise ConfigError(
                f"{path}: weights of another architecture; give the pair of one retraining"
            )
        space = job.space.resize(**about["network"])
        net = final_network(space, architecture)
        load_weights(net, path)
        return net.to(job.device).eval(), architecture, about, path

    def evaluate(self) -> None:
        """Reads the test split: once in a full run, counted."""
        job = self.job
        net, architecture, about, path = self.final()
        identity = self._identity() | {
            "architecture": architecture.identity,
            "weights": digest_of(path),
        }
        if self.run.done("evaluate", identity):
            log.info("evaluate: finished before, in %s", job.folder)
            return
        trained_on = (about["data"]["name"], tuple(about["data"]["classes"]), net.space.input_shape)
        if trained_on != (job.data.name, tuple(job.data.classes), tuple(job.data.input_shape)):
            raise ConfigError(
                f"data: the weights were trained on {trained_on[0]} ({len(trained_on[1])} classes, "
                f"{trained_on[2]}), found data={job.data.name}; set data={trained_on[0]}"
            )
        with measured(job.device) as cost:
            job.data.to(job.device)
            measures = evaluate(net, job.data.test(job.recipe.batch_size))
        self.results.update(
            test_accuracy=measures["accuracy"],
            test_reads=self.results.fields["test_reads"] + job.data.test_reads,
            parameters=parameters(net),
            macs=macs(net),
            architecture=architecture.identity,
        )
        self._cost("evaluate", cost)
        self.run.finish("evaluate", identity)

    def export(self) -> None:
        """Leaves the network in forms that need no project, each checked in a fresh process."""
        job = self.job
        net, architecture, about, path = self.final()
        identity = {"weights": digest_of(path), "formats": list(job.formats)}
        if self.run.done("export", identity):
            log.info("export: finished before, in %s", job.folder)
            return
        with measured(job.device) as cost:
            export(
                net.cpu(),
                architecture,
                job.folder / "export",
                normalisation=(about["data"]["mean"], about["data"]["std"]),
                classes=about["data"]["classes"],
                formats=job.formats,
            )
        self._cost("export", cost)
        self.run.finish("export", identity)

    # -- helpers
    # ------------------------------------------------------------------------------------------

    def _identity(self, *parts: str) -> dict[str, Any]:
        chosen = {part: self.job.settings[part] for part in (*parts, "data", "seed")}
        return chosen | {"data_fingerprint": self.job.data.fingerprint()}

    def _cost(self, phase: str, cost: dict[str, Any]) -> None:
        self.results.update(**{name: {phase: value} for name, value in cost.items()})
        self.record.close()


def final_space(space: Space, recipe: Recipe) -> Space:
    """The space at the recipe's size. Raises ConfigError where the space has no such stem."""
    size = recipe.size
    if "stem" in size and "stem" not in space.settings:
        raise ConfigError(
            f"retrain.stem: space {space.name} has no choice of stems, found '{recipe.stem}'; "
            "set retrain.stem=null"
        )
    if "stem" in size:
        size["stem_multiplier"] = None  # the stem's own, whatever the search used
    try:
        return space.resize(**size)
    except ValueError as error:
        raise ConfigError(f"retrain: {error}") from error


def normalisation(data: Data) -> dict[str, list[float]]:
    """Per-channel mean and standard deviation that the images are normalised by."""
    return {"mean": [float(v) for v in data.mean], "std": [float(v) for v in data.std]}


def digest_of(path: Path) -> str:
    """sha256 of a file's bytes."""
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
