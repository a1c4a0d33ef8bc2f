"""The records of a run: metrics.jsonl, its loggers, results.json, and a progress bar."""

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import TqdmWarning, tqdm

from archsmith.files import write_atomically
from archsmith.loggers.logger import Loggers
from archsmith.train import nni_trial
from archsmith.train.run_folder import read_object
from archsmith.train.runtime import peak_memory

log = logging.getLogger(__name__)

SLOW = 0.3  # share of an epoch spent waiting for data that triggers a warning

RESULTS = (
    "strategy", "space", "data", "seed", "search_epochs", "supernet_accuracy",
    "discretised_accuracy", "test_accuracy", "test_balanced_accuracy", "test_images",
    "test_interval", "test_commonest_share", "test_doubt", "test_mistakes",
    "test_bits_per_character",
    "diagnosis", "degenerate", "undecided", "searched_costs",
    "warnings", "benchmark", "ranking", "parameters", "macs", "budget", "baseline", "latency",
    "int8", "seconds",
    "cpu_seconds", "peak_memory_bytes", "test_reads", "device", "versions", "data_fingerprint",
    "architecture",
)  # fmt: skip


class Record:
    """Writes a run's metrics to metrics.jsonl and to its loggers; `resume` removes what was logged
    after a checkpoint.

    Epochs count from 0 in the file, and from 1 in the loggers and on the console. If nothing can be
    written, training goes on with a single warning.
    """

    def __init__(self, folder: Path, loggers: Loggers | None = None):
        self.folder = folder
        self.path = folder / "metrics.jsonl"
        self.loggers = Loggers() if loggers is None else loggers
        self._cost: dict[str, float] = {}
        self._told = False

    def resume(self, phase: str, step: int) -> None:
        """Drops lines of `phase` from `step` on, as they will be written again."""
        dropped = {}
        if self.path.is_file():
            kept = []
            for line in self.path.read_text(encoding="utf-8").splitlines():
                entry = _entry(line)
                if entry is None or (entry["phase"] == phase and entry["step"] >= step):
                    dropped.update(_numbers(entry))
                else:
                    kept.append(line)
            with self._surviving():
                write_atomically(self.path, "".join(f"{line}\n" for line in kept).encode())
        self.loggers.tell(lambda one: one.resume(phase, step, dropped))

    def log(self, phase: str, step: int, metrics: Mapping[str, float | None]) -> None:
        """Writes a line to metrics.jsonl, and the epoch's numbers and cost to the loggers."""
        entry = {"phase": phase, "step": step, **metrics}
        watched = metrics.get("supernet_accuracy")
        if watched is not None:
            nni_trial.intermediate(watched)
        with self._surviving(), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        present = {name: value for name, value in metrics.items() if value is not None}
        values, self._cost = present | self._cost, {}
        self.loggers.tell(lambda one: one.scalars(phase, step + 1, values))

    def cost(self, step_seconds: float | None, device: torch.device) -> None:
        """The cost of the epoch that is logged next: milliseconds per step and peak memory. It goes
        only to the loggers."""
        self._cost = {"peak_memory_mib": peak_memory(device) / 2**20}
        if step_seconds is not None:
            self._cost["step_ms"] = 1000 * step_seconds

    def histogram(self, phase: str, name: str, values: torch.Tensor, step: int) -> None:
        """Sends the distribution of some values to the loggers."""
        there = values.detach().cpu()
        self.loggers.tell(lambda one: one.histogram(phase, step + 1, name, there))

    def image(self, phase: str, name: str, image: np.ndarray, step: int) -> None:
        """Sends a picture (H, W, 3) uint8 to the loggers."""
        self.loggers.tell(lambda one: one.image(phase, step + 1, name, image))

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._told:
                log.warning("%s: the log cannot be written (%s); going on", self.folder, error)
            self._told = True

    def close(self) -> None:
        """A phase has ended."""
        self.loggers.tell(lambda one: one.pause())


def _entry(line: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None for one that is not complete."""
    try:
        entry: dict[str, Any] = json.loads(line)
        return entry if {"phase", "step"} <= entry.keys() else None
    except (ValueError, AttributeError):
        return None


def _numbers(entry: dict[str, Any] | None) -> dict[int, dict[str, float]]:
    """The numbers of a line by its epoch from 1, without those that are null."""
    if entry is None:
        return {}
    numbers = {k: v for k, v in entry.items() if k not in ("phase", "step") and v is not None}
    return {entry["step"] + 1: numbers}


class Results:
    """results.json: has every documented field from the start, null until its phase has run."""

    def __init__(self, folder: Path):
        self.path = folder / "results.json"
        self.fields: dict[str, Any] = dict.fromkeys(RESULTS)
        self.fields |= {"seconds": {}, "cpu_seconds": {}, "peak_memory_bytes": {}, "test_reads": 0}
        if self.path.is_file():
            self.fields |= read_object(self.path)

    def update(self, **fields: Any) -> None:
        """Updates fields and saves; a mapping is merged into an existing mapping."""
        for name, value in fields.items():
            old = self.fields.get(name)
            self.fields[name] = (
                old | value if isinstance(old, dict) and isinstance(value, dict) else value
            )
        write_atomically(self.path, (json.dumps(self.fields, indent=2) + "\n").encode())


def in_notebook() -> bool:
    return "ipykernel" in sys.modules


def bar_class() -> type[tqdm]:
    """The bar of a notebook where it has widgets; elsewhere one of characters, as `tqdm.auto`
    warns of a notebook without widgets."""
    if in_notebook() and find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as widget

        return widget
    return tqdm


def lines_above(bar: tqdm) -> AbstractContextManager[None]:
    """A context manager in which log lines go above the bar."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # imports tqdm.auto, which we do not use
        from tqdm.contrib.logging import logging_redirect_tqdm
    redirected: AbstractContextManager[None] = logging_redirect_tqdm(tqdm_class=type(bar))
    return redirected


class Progress:
    """A progress bar with loss, accuracy and time left, in a terminal or a notebook."""

    def __init__(self, phase: str, steps: int, done: int = 0):
        self.phase, self.told = phase, False
        self.step_seconds: float | None = None  # mean over the last epoch
        self.bar = bar_class()(
            total=steps,
            initial=done,
            desc=phase,
            unit="step",
            disable=not (sys.stderr.isatty() or in_notebook()),
            dynamic_ncols=True,
            leave=False,
        )

    def __enter__(self) -> "Progress":
        self.lines = ExitStack()
        if not self.bar.disable:  # log lines must not break the bar
            self.lines.enter_context(lines_above(self.bar))
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.bar.close()

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yields the batches and advances the bar; warns once if data loading is the bottleneck."""
        began, waited, asked = time.perf_counter(), 0.0, time.perf_counter()
        steps = 0
        for steps, batch in enumerate(loader, start=1):  # noqa: B007 - counted for the mean
            waited += time.perf_counter() - asked
            yield batch
            self.bar.update()
            asked = time.perf_counter()
        whole = time.perf_counter() - began
        self.step_seconds = whole / steps if steps else None
        if waited > SLOW * whole and waited > 10 and not self.told:
            self.told = True
            log.warning(
                "%s: %.0f%% of the epoch was spent waiting for images; raise data.workers or "
                "data.memory_mb, or move the images to a faster disk",
                self.phase, 100 * waited / whole,
            )  # fmt: skip

    def at(self, done: int) -> None:
        """Sets the number of steps that are done."""
        self.bar.n = done

    def note(self, epoch: int, means: Mapping[str, float]) -> None:
        """Sets the text behind the bar: the epoch (from 1), and its loss and accuracy so far."""
        loss, accuracy = f"{means['train_loss']:.3f}", f"{means['train_accuracy']:.3f}"
        self.bar.set_postfix({"epoch": epoch, "loss": loss, "accuracy": accuracy}, refresh=False)


class Averages:
    """Means of 0-dim tensors over an epoch, kept on the device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, torch.Tensor]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means so far. Waits for the device."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        self.counts = {name: int(state["counts"][name]) for name in self.sums}
