"""The phases of a run, each skipped when its folder holds it."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, configuring
from engine.evaluate import evaluate
from engine.export.files import export
from engine.files import write_atomically
from engine.final.network import digest_of, final_space, load_final, save_final
from engine.final.retrain import retrain, train
from engine.final.weights import save_weights
from engine.job import Job
from engine.parallel.data_parallel import across_processes
from engine.parallel.distributed import from_first, size
from engine.records.record import Record, Results
from engine.records.run_folder import RunFolder
from engine.report.drawing import cell_svg
from engine.runtime import describe_device, measured, seed_everything, versions
from engine.safety.checkpoint import Checkpoints
from engine.safety.shared_checkpoints import SharedCheckpoints
from engine.search.benchmark import look_up, rank_correlation
from engine.search.diagnosis import degenerate
from engine.search.loop import search
from engine.search.time_budget import epochs_within
from engine.within_budget import drawn, fit_of, fitted, spent
from search_spaces.architecture import Architecture
from supernets.costs import macs, parameters
from supernets.network import Network

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
            device=f"{size()} x " * (size() > 1) + describe_device(job.device),
            versions=versions(),
            data_fingerprint=job.data.fingerprint(),
        )

    # -- search
    # -------------------------------------------------------------------------------------------

    def search(self) -> None:
        """Leaves `architecture.json`, one file an epoch, and drawings of the cells."""
        job = self.job
        identity = self._identity("space", "strategy", "search")
        searched = identity | self._budget_identity()
        if job.architecture is not None:
            raise ConfigError(
                "architecture: task=search finds one, but "
                f"architecture={job.settings['architecture']} was given; "
                "leave it out, or set task=retrain"
            )
        if self.run.done("search", searched):
            log.info("search: finished before, in %s", job.folder)
        else:
            self._search(identity)
            self.run.finish("search", searched)
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
            meta["epoch"] = None
            if job.budget.limits:
                architecture, told = drawn(job, strategy, meta)
                self._budgeted(told)
            else:
                architecture = strategy.architecture(**meta)
        self._keep(architecture)
        warning = degenerate(job.space, architecture)
        if warning:
            log.warning("search: %s", warning)
        self.results.update(degenerate=warning)

    def _train_supernet(self, strategy: Any, identity: dict[str, Any], meta: dict[str, Any]) -> Any:
        job = self.job
        job.data.to(job.device)
        with configuring():
            net = job.supernet(strategy)
        across_processes(net)
        roles = job.data.loaders(
            job.search.batch_size, one_level=not strategy.update.two_level, seed=job.seed
        )
        settings = job.search
        if settings.seconds is not None:  # timed once: a resumed search keeps its epochs
            epochs = self.results.fields["search_epochs"]
            epochs = epochs or from_first(epochs_within(settings.seconds, net, strategy, roles))
            settings = replace(settings, epochs=epochs)
        self.results.update(search_epochs=settings.epochs)
        found = search(
            net,
            strategy,
            roles,
            settings,
            folder=job.folder,
            record=self.record,
            checkpoints=self._checkpoints("search", identity),
            meta=meta,
        )
        if job.budget.limits:
            found, told = fitted(job, found, net, strategy, roles)
            self._budgeted(told)
        return found

    def _budgeted(self, told: dict[str, Any]) -> None:
        """Notes what was chosen within the budget, in the place of what was noted before."""
        self.results.fields["budget"] = None
        self.results.update(budget=told)

    def _budget_identity(self) -> dict[str, Any]:
        """What a search also depends on where there is a budget: that, and the final size."""
        if not self.job.budget.limits:
            return {}
        return {"budget": self.job.settings["budget"], "final_size": self.job.recipe.size}

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
        net = job.supernet(job.strategy(job.space))
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
        if job.budget.limits and job.architecture is not None:
            self._budgeted(spent(fit_of(job), architecture))
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
            tested = self._tested(net)
        self.results.update(
            **tested,
            test_reads=self.results.fields["test_reads"] + 1,
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

    # -- the hand-made baseline
    # ----------------------------------------------------------------------------------

    def baseline(self) -> None:
        """Trains a network made by hand as the found one is, reads the test split once with it.

        Leaves `baseline_<network>.safetensors`.
        """
        job, architecture = self.job, self.architecture()
        if job.baseline is None:
            raise ConfigError("baseline: null, expected one; set baseline=resnet18")
        name = job.baseline.network
        phase = f"baseline_{name}"
        identity = self._identity("retrain") | asdict(job.baseline)
        identity["architecture"] = architecture.identity
        if self.run.done(phase, identity):
            log.info("%s: finished before, in %s", phase, job.folder)
            return
        seed_everything(job.seed)
        net, told = job.baseline.beside(final_space(job.space, job.recipe), architecture)
        net = net.to(job.device)
        log.info(
            "%s: width %.3g, %s parameters, %.3f of the found network's %s",
            phase, told["width"], f"{told['parameters']:,}", told["ratio"], told["match"],
        )  # fmt: skip
        checkpoints = self._checkpoints(phase, identity)
        seed_everything(job.seed)
        with measured(job.device) as cost:
            net = train(
                net,
                job.data.to(job.device),
                job.recipe,
                job.folder,
                job.device,
                job.seed,
                self.record,
                checkpoints,
            )
            save_weights(net, job.folder / f"{phase}.safetensors", {"network": json.dumps(told)})
            told |= self._tested(net)
        self.results.update(baseline={name: told}, test_reads=self.results.fields["test_reads"] + 1)
        self._cost(phase, cost)
        self.run.finish(phase, identity)

    # -- helpers
    # ------------------------------------------------------------------------------------------

    def _tested(self, net: Any) -> dict[str, Any]:
        """The two accuracies on the test split, which this reads once."""
        data = self.job.data.to(self.job.device)
        measures = evaluate(net, data.test(self.job.recipe.batch_size))
        return {f"test_{name}": measures[name] for name in ("accuracy", "balanced_accuracy")}

    def _checkpoints(self, phase: str, identity: dict[str, Any]) -> Checkpoints:
        """Of a phase; with resume=never those of an earlier run are gone."""
        job = self.job
        found = (Checkpoints if size() == 1 else SharedCheckpoints)(
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
