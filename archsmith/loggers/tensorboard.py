"""TensorBoard: event files, all in one folder of the run, so that TensorBoard lists it once."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from archsmith.loggers.event_files import drop
from archsmith.loggers.hparams import PREFIX, RESULT, columns, measures, session
from archsmith.loggers.logger import Logger, Outcome

TITLES = {  # what TensorBoard says of a curve
    "train_loss": "loss on the training images, mean over the epoch",
    "train_accuracy": "accuracy on the training images, mean over the epoch",
    "val_loss": "loss on the images that train the alphas, mean over the epoch",
    "supernet_accuracy": "accuracy of the supernet on held-out images",
    "supernet_loss": "loss of the supernet on held-out images",
    "discretised_accuracy": "accuracy on held-out images of the architecture read from the gates, "
    "with the supernet's weights",
    "discretisation_gap": "accuracy of the supernet minus that of the discretised network",
    "gate_entropy": "entropy of the gates, mean over edges: 1 undecided, 0 decided",
    "gate_margin": "largest minus second largest gate of an edge, mean over edges",
    "skips": "skip connections that the architecture keeps",
    "pools": "poolings that the architecture keeps",
    "nones": "edges on which `none` has the largest gate",
    "distance": "distance of the architecture from that of the first epoch",
    "lr": "learning rate of the weights",
    "seconds": "seconds of the epoch, with its measurements",
    "step_ms": "milliseconds of a training step, mean over the epoch",
    "peak_memory_mib": "peak memory so far, in MiB",
    "alpha_eigenvalue": "largest eigenvalue of the Hessian in the alphas",
    "weight_sharpness": "sharpness in the weights",
    "alpha_signal": "mean gradient of the alphas over its deviation over the steps",
    "score": "score of the architecture",
    "best_score": "best score so far",
    "test_accuracy": "accuracy on the test images, read once",
    "parameters": "parameters of the found network",
    "macs": "multiply-accumulates of the found network per image",
}


class TensorBoard(Logger):
    """Tags are `<phase>/<metric>`, `<phase> cells/<choice>`, ... and `summary/<result>`.

    Curves and pictures of epochs that are repeated are removed from the files, so that every step
    is there once.
    """

    package = "tensorboard"

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        super().__init__(folder / "tensorboard", settings)
        self._open: Any = None

    @property
    def _writer(self) -> Any:
        """The writer, created on first use, as its import is slow."""
        if self._open is None:
            from torch.utils.tensorboard import SummaryWriter

            self._open = SummaryWriter(str(self.folder))
        return self._open

    def scalars(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import scalar

        for name, value in values.items():
            summary = scalar(f"{phase}/{name}", value)
            about = summary.value[0].metadata
            about.plugin_data.plugin_name = "scalars"
            about.summary_description = TITLES.get(name, "")
            self._writer.file_writer.add_summary(summary, epoch)
        self._writer.flush()  # what was measured before a kill is kept

    def image(self, phase: str, epoch: int, name: str, pixels: np.ndarray) -> None:
        self._writer.add_image(f"{phase} {name}", pixels, epoch, dataformats="HWC")

    def histogram(self, phase: str, epoch: int, name: str, values: Tensor) -> None:
        self._writer.add_histogram(f"{phase} {name}", values, epoch)

    def resume(self, phase: str, epoch: int, dropped: Mapping[int, Mapping[str, Any]]) -> None:
        self.pause()
        drop(self.folder, lambda tag, step: re.split("[ /]", tag)[0] == phase and step > epoch)

    def pause(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def finish(self, outcome: Outcome) -> None:
        """Writes the session of the hparams view, in place of what an earlier call wrote."""
        self.pause()
        drop(self.folder, lambda tag, step: tag.split("/")[0] in (RESULT, PREFIX))
        for part in session(columns(self.settings, outcome.changed), outcome.changed):
            self._writer.file_writer.add_summary(part)
        self.scalars(RESULT, 1, measures(outcome.results))
        self.pause()
