"""A job and its folder: what the phases of a run share."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from archsmith.data.preprocessing import Preprocessing
from archsmith.differences import flat
from archsmith.drawing.cells import cell_svg
from archsmith.errors import ConfigError, exit_code
from archsmith.files import write_atomically
from archsmith.job import Job
from archsmith.loggers.logger import Outcome
from archsmith.loggers.start import started
from archsmith.parallel.distributed import first, size
from archsmith.phases.needs import NEEDS, need
from archsmith.result.mistakes import Mistakes
from archsmith.result.network import load_final
from archsmith.result.outcome import outcome
from archsmith.result.report.gates import gates_of
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.evaluate import evaluate
from archsmith.train.record import Record, Results
from archsmith.train.run_folder import RunFolder
from archsmith.train.runtime import describe_device, measured, versions
from search_spaces.architecture import Architecture
from supernets.network import Network

log = logging.getLogger(__name__)

KEPT = ("architecture.json", "results.json", "report.html")  # files for the loggers


class Final(NamedTuple):
    """The trained final network."""

    net: Network  # on the device, in eval mode
    architecture: Architecture
    preprocessing: Preprocessing
    data: str  # name of the data set it was trained on
    path: Path  # the weights file


class Run:
    """A job in its folder. A phase asks `finished` first, computes, and ends with `finish`."""

    def __init__(self, job: Job):
        self.job = job
        self.folder = RunFolder(job.folder, resume=job.resume)
        settings = json.dumps(job.settings, indent=2) + "\n"
        write_atomically(job.folder / "config.json", settings.encode())
        self.results = Results(job.folder)
        logged = job.loggers if first() else ()
        self.loggers = started(logged, job.folder, {**job.names, **flat(job.settings)})
        self.record = Record(job.folder, self.loggers)
        self.results.update(
            **job.names,
            seed=job.seed,
            device=f"{size()} x " * (size() > 1) + describe_device(job.device),
            versions=versions(),
            data_fingerprint=job.fingerprint,
        )

    def identity(self, *parts: str) -> dict[str, Any]:
        """The settings of these groups, of the data and the seed, which identify a phase."""
        chosen = {part: self.job.settings[part] for part in (*parts, "data", "seed")}
        return chosen | {"data_fingerprint": self.job.fingerprint}

    def finished(self, phase: str, identity: dict[str, Any]) -> bool:
        """Whether the folder holds the finished phase under the same settings; logs it if so."""
        done = self.folder.done(phase, identity)
        if done:
            log.info("%s: finished before, in %s", phase, self.job.folder)
        return done

    def finish(self, phase: str, identity: dict[str, Any]) -> None:
        self.folder.finish(phase, identity)

    @contextmanager
    def measuring(self, phase: str) -> Iterator[None]:
        """A context manager that records the phase's seconds and peak memory when it ends."""
        with measured(self.job.device) as cost:
            yield
        self.results.update(**{name: {phase: value} for name, value in cost.items()})
        self.record.close()

    @contextmanager
    def logging(self) -> Iterator[None]:
        """A context manager that ends the loggers, with the exit code that an exception means."""
        code = 0
        try:
            yield
        except BaseException as error:
            code = exit_code(error)
            raise
        finally:
            self.loggers.tell(lambda one: one.end(code))

    def conclude(self, changed: Sequence[str]) -> None:
        """Sends the results and the files of the finished run to the loggers; `changed`: the
        settings that the command line changes."""
        files = [self.job.folder / name for name in KEPT]
        files = [*filter(Path.is_file, files), *sorted(self.job.folder.glob("cell_*.svg"))]
        outcome = Outcome(self.results.fields, changed, files)
        self.loggers.tell(lambda one: one.finish(outcome))

    def checkpoints(self, phase: str, identity: dict[str, Any]) -> Checkpoints:
        """The checkpoints of a phase; with resume=never, those of an earlier run are removed."""
        job = self.job
        found = Checkpoints(
            job.folder / "checkpoints",
            phase,
            identity,
            every_seconds=job.checkpoint_seconds,
            force=job.resume == "force",
        )
        if job.resume == "never" and phase not in self.folder.phases:
            found.clear()
        return found

    def budgeted(self, told: dict[str, Any]) -> None:
        """Records the choice within the budget, replacing an earlier record."""
        self.results.fields["budget"] = None
        self.results.update(budget=told)

    def keep(self, architecture: Architecture) -> None:
        """Writes `architecture.json` and a drawing of each cell, with the shares of the gates that
        the run's own search chose by."""
        architecture.save(self.job.folder / "architecture.json")
        searched = self.job.architecture is None and "epoch" in architecture.meta
        gates = gates_of(self.job.folder, architecture.meta["epoch"]) if searched else {}
        for group, cell in self.job.space.choices.items():
            title, own = f"{group} cell", gates.get(group)
            svg = cell_svg(cell, architecture.choices[group], title, own)
            write_atomically(self.job.folder / f"cell_{group}.svg", svg.encode())

    def architecture(self) -> Architecture:
        """The architecture, given or found by this run. Raises ConfigError if there is none."""
        if self.job.architecture is not None:
            return self.job.architecture
        need(self.job, "architecture")
        return Architecture.load(self.job.folder / "architecture.json")

    def final(self) -> Final:
        """The trained final network with the metadata of its weights file.

        Raises:
            ConfigError: there are no weights, or they do not match the architecture.
        """
        job, architecture = self.job, self.architecture()
        retrained = "retrain" in self.folder.phases
        path = job.folder / "weights.safetensors" if retrained else job.weights
        if path is None or not path.is_file():
            raise ConfigError(NEEDS["weights"].line)
        net, preprocessing, data = load_final(path, job.space, architecture)
        return Final(net.to(job.device).eval(), architecture, preprocessing, data, path)

    def tested(
        self, net: nn.Module, preprocessing: Preprocessing
    ) -> tuple[dict[str, Any], Mistakes | None]:
        """Evaluates a network on the test split, preprocessed as given; counts as one read.

        Returns the test fields of `results.json`, and where the network is wrong; None for text.
        """
        data = self.job.data.to(self.job.device)
        loader = data.test(self.job.recipe.batch_size, preprocessing)
        if data.reads_text:
            return outcome(evaluate(net, loader), data.classes, text=True), None
        mistakes = Mistakes(data.classes, preprocessing.normalise, loader.images.name)
        measures = evaluate(net, loader, seen=mistakes.add)
        return outcome(measures, data.classes), mistakes
