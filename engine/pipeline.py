"""The phases of a run, each skipped when its folder holds it: search, retrain, evaluate, export."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.benchmark import look_up, rank_correlation
from engine.budget import epochs_within
from engine.checkpoint import Checkpoints, write_atomically
from engine.diagnosis import degenerate
from engine.drawing import cell_svg
from engine.errors import ConfigError, configuring
from engine.evaluate import evaluate
from engine.export import export
from engine.final import digest_of, final_space, load_final, save_final
from engine.job import Job
from engine.recipe import PRECISIONS
from engine.record import Record, Results
from engine.retrain import retrain
from engine.run_folder import RunFolder
from engine.runtime import describe_device, measured, seed_everything, versions
from engine.search import search
from search_spaces.architecture import Architecture
from supernets.costs import macs, parameters
from supernets.forms import use_form
from supernets.network import Network, supernet

log = logging.getLogger(__name__)


class Pipeline:
    """Runs a job's phases into its folder, but those finished there under the same settings."""

    def __init__(self, job: Job):
        self.job = job
        self.run = RunFolder(job.folder, resume=job.resume)
        write_atomically(
            job.folder / "config.json", (json.dumps(job.settings, indent=2) + "\n").encode()
        )
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
            net = self._supernet(strategy)
            strategy.setup(net, job.device)
        roles = job.data.loaders(
            job.search.batch_size, one_level=not strategy.update.two_level, seed=job.seed
        )
        settings = job.search
        if settings.seconds is not None:  # timed once: a resumed search keeps its epochs
            epochs = self.results.fields["search_epochs"]
            epochs = epochs or epochs_within(settings.seconds, net, strategy, roles)
            settings = replace(settings, epochs=epochs)
        self.results.update(search_epochs=settings.epochs)
        return search(
            net,
            strategy,
            roles,
            settings,
            folder=job.folder,
            record=self.record,
            checkpoints=self._checkpoints("search", identity),
            meta=meta,
        )

    def _supernet(self, strategy: Any) -> Network:
        net = supernet(self.job.space, strategy.mixed_op).to(self.job.device)
        use_form(net, self.job.form, self.job.device)
        net.checkpoint_cells = self.job.checkpoint_cells
        net.autocast = PRECISIONS[self.job.search.precision]
        return net

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
        state = self._checkpoints("search", identity).load()
        if state is None:
            raise ConfigError(
                f"task=rank: no searched supernet in {job.folder}; run task=search first with the "
                "same settings (random trains none)"
            )
        net = self._supernet(job.strategy(job.space))
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
                checkpoints=self._checkpoints("retrain", identity),
            )
        save_final(net, job.folder / "weights.safetensors", architecture, job.data, job.recipe)
        self.results.update(
            parameters=parameters(net),
            macs=macs(net),
            architecture=architecture.identity,
            test_accuracy=None,
            test_balanced_accuracy=None,
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
        retrained = "retrain" in self.run.phases
        path = job.folder / "weights.safetensors" if retrained else job.weights
        if path is None or not path.is_file():
            raise ConfigError(
                "weights: this task needs a trained network; set architecture=<run directory "
                "that was retrained>, "
                "or weights=<file> beside architecture=<file>"
            )
        net, about = load_final(path, job.space, architecture)
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
            test_balanced_accuracy=measures["balanced_accuracy"],
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

    def _checkpoints(self, phase: str, identity: dict[str, Any]) -> Checkpoints:
        """Of a phase; with resume=never those of an earlier run are gone."""
        job = self.job
        found = Checkpoints(
            job.folder / "checkpoints",
            phase,
            identity,
            every_seconds=job.checkpoint_seconds,
            force=job.resume == "force",
        )
        if job.resume == "never" and phase not in self.run.phases:
            found.clear()
        return found

    def _identity(self, *parts: str) -> dict[str, Any]:
        chosen = {part: self.job.settings[part] for part in (*parts, "data", "seed")}
        return chosen | {"data_fingerprint": self.job.data.fingerprint()}

    def _cost(self, phase: str, cost: dict[str, Any]) -> None:
        self.results.update(**{name: {phase: value} for name, value in cost.items()})
        self.record.close()
