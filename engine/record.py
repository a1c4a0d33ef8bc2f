"""What a run leaves to read: metrics.jsonl, TensorBoard, results.json, a line of progress."""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from engine.checkpoint import write_atomically

log = logging.getLogger(__name__)

RESULTS = (
    "strategy",
    "space",
    "data",
    "seed",
    "search_epochs",
    "supernet_accuracy",
    "discretised_accuracy",
    "test_accuracy",
    "diagnosis",
    "degenerate",
    "benchmark",
    "ranking",
    "parameters",
    "macs",
    "seconds",
    "peak_memory_bytes",
    "test_reads",
    "device",
    "versions",
    "data_fingerprint",
    "architecture",
)


class Record:
    """Writes one run's metrics; `resume` forgets what was logged after a checkpoint."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "metrics.jsonl"
        self._writer: Any = None
        self._purge_step: int | None = None

    @property
    def tensorboard(self) -> Any:
        """The TensorBoard writer, made on first use: its import is slow."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.folder / "tensorboard", purge_step=self._purge_step)
        return self._writer

    def resume(self, phase: str, step: int) -> None:
        """Drops lines of `phase` from `step` on: they are about to be written again."""
        if self.path.is_file():
            lines = [json.loads(line) for line in self.path.read_text().splitlines()]
            kept = [entry for entry in lines if entry["phase"] != phase or entry["step"] < step]
            text = "".join(json.dumps(entry) + "\n" for entry in kept)
            write_atomically(self.path, text.encode())
        self._purge_step = step

    def log(self, phase: str, step: int, metrics: Mapping[str, float | None]) -> None:
        """A line of metrics.jsonl, and a point per metric in TensorBoard as `<phase>/<name>`."""
        entry = {"phase": phase, "step": step, **metrics}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        for name, value in metrics.items():
            if value is not None:
                self.tensorboard.add_scalar(f"{phase}/{name}", value, step)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """A picture (H, W, 3) uint8 in TensorBoard."""
        self.tensorboard.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Results:
    """results.json: every documented field from the start, null until its phase has run."""

    def __init__(self, folder: Path):
        self.path = folder / "results.json"
        self.fields: dict[str, Any] = dict.fromkeys(RESULTS)
        self.fields |= {"seconds": {}, "peak_memory_bytes": {}, "test_reads": 0}
        if self.path.is_file():
            self.fields |= json.loads(self.path.read_text())

    def update(self, **fields: Any) -> None:
        """Merges and saves; a mapping is merged into the mapping that is there."""
        for name, value in fields.items():
            old = self.fields.get(name)
            self.fields[name] = (
                old | value if isinstance(old, dict) and isinstance(value, dict) else value
            )
        write_atomically(self.path, (json.dumps(self.fields, indent=2) + "\n").encode())


class Progress:
    """A bar with loss, accuracy and time left on a terminal; elsewhere nothing."""

    def __init__(self, phase: str, steps: int, done: int = 0):
        self.bar = tqdm(
            total=steps,
            initial=done,
            desc=phase,
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            leave=False,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Passes batches through, advancing the bar."""
        for batch in loader:
            yield batch
            self.bar.update()

    def note(self, **values: float | str) -> None:
        """What stands behind the bar."""
        self.bar.set_postfix(
            {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in values.items()}, refresh=False
        )


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
