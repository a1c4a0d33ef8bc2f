"""Weights & Biases: a run of a project, on the server, or in files if it is set to offline."""

import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import numpy as np
from torch import Tensor

from archsmith.loggers.logger import Outcome
from archsmith.loggers.tracker import PROJECT, Tracker, numbers


class WandB(Tracker):
    """Settings are the run's config, `<phase>/<metric>` is drawn over `<phase>/epoch`, results are
    its summary, files an artifact.

    WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE say where to.
    """

    package = "wandb"

    def start(self, run_id: str | None) -> str:
        import wandb

        run_id = run_id or uuid4().hex[:8]
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.folder.name,
            id=run_id,
            resume="allow",
            dir=str(self.folder),
            config=dict(self.settings),
            reinit="create_new",  # a run that a notebook has open is left alone
        )
        return run_id

    def resume(self, phase: str, epoch: int, dropped: Mapping[int, Mapping[str, Any]]) -> None:
        super().resume(phase, epoch, dropped)
        self.run.define_metric(f"{phase}/epoch", hidden=True)
        self.run.define_metric(f"{phase}/*", step_metric=f"{phase}/epoch")

    def send(self, phase: str, epoch: int, values: Mapping[str, Any]) -> None:
        named = {f"{phase}/{name}": value for name, value in values.items()}
        self.run.log({f"{phase}/epoch": epoch, **named})

    def image(self, phase: str, epoch: int, name: str, pixels: np.ndarray) -> None:
        import wandb

        self.send(phase, epoch, {name: wandb.Image(pixels)})

    def histogram(self, phase: str, epoch: int, name: str, values: Tensor) -> None:
        import wandb

        self.send(phase, epoch, {name: wandb.Histogram(values.numpy())})

    def finish(self, outcome: Outcome) -> None:
        import wandb

        self.run.summary.update(numbers(outcome.results))
        kept = wandb.Artifact(f"run-{self.run_id}", type="run")
        for file in outcome.files:
            kept.add_file(str(file))
        self.run.log_artifact(kept)

    def end(self, exit_code: int) -> None:
        self.run.finish(exit_code=exit_code)
