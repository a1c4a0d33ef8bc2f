"""Detects numbers that are not finite, in the step where they arise, and runs that do not learn."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from archsmith.data.loader import Loader
from archsmith.errors import NumbersError
from archsmith.files import write_atomically

SETTLED = 50  # steps before a loss is judged
READ_EVERY = 10  # steps between checks on an asynchronous device: each check waits for it


def largest(tensors: Iterable[Tensor]) -> Tensor:
    """The largest absolute value, 0-dim; NaN or infinite exactly where an element is."""
    return get_total_norm([t.detach() for t in tensors], math.inf, foreach=None)


class SeenStep(NamedTuple):
    epoch: int
    step: int
    batches: dict[str, tuple[int, int]]  # role -> epoch and batch of its loader
    measured: Mapping[str, Tensor]


class Watch:
    """Checks the numbers of each step: immediately on the CPU, else every `READ_EVERY` steps.

    Args:
        remedy: the settings to change, for the error message.
        loaders: role -> loader, to identify the images of the failed step; `not_finite.json` in
            `folder` lists them.
    """

    def __init__(
        self,
        phase: str,
        remedy: str,
        folder: Path,
        loaders: Mapping[str, Loader],
    ):
        self.phase, self.remedy, self.folder, self.loaders = phase, remedy, folder, loaders
        self._seen: list[SeenStep] = []

    def see(self, epoch: int, step: int, measured: Mapping[str, Tensor]) -> None:
        """Adds a step's 0-dim tensors (epoch and step count from 1). Raises NumbersError."""
        batches = {role: (one.epoch, one.batch) for role, one in self.loaders.items()}
        self._seen.append(SeenStep(epoch, step, batches, measured))
        on_cpu = all(value.device.type == "cpu" for value in measured.values())
        if on_cpu or len(self._seen) >= READ_EVERY:
            self.read()

    def read(self) -> None:
        """Checks the pending steps. Raises NumbersError."""
        seen, self._seen = self._seen, []
        if not seen:
            return
        values = torch.stack([v.detach().float() for one in seen for v in one.measured.values()])
        names = [(one, name) for one in seen for name in one.measured]
        for (one, name), value in zip(names, values.tolist(), strict=True):
            if not math.isfinite(value):
                self._list_images(one, name)
                raise self._error(one.epoch, f", step {one.step}: the {name} is {value}")

    def check(self, epoch: int, state: Mapping[str, Tensor]) -> None:
        """Checks pending steps and all tensors of a state, before a save. Raises NumbersError."""
        self.read()
        floating = {name: t for name, t in state.items() if t.is_floating_point() and t.numel()}
        if floating and not math.isfinite(float(largest(floating.values()))):
            name = next(n for n, t in floating.items() if not t.isfinite().all())
            raise self._error(epoch, f": '{name}' is no longer finite")

    def _error(self, epoch: int, what: str) -> NumbersError:
        return NumbersError(
            f"{self.phase} epoch {epoch}{what}; {self.remedy}. The last checkpoint, from before, "
            "is kept"
        )

    def _list_images(self, one: SeenStep, name: str) -> None:
        images: dict[str, Any] = {}
        for role, (epoch, batch) in one.batches.items():
            images[role] = self.loaders[role].drawn(epoch, batch - 1)
        content = {"phase": self.phase, "epoch": one.epoch, "step": one.step, "what": name}
        text = json.dumps({**content, "images": images}, indent=2)
        write_atomically(self.folder / "not_finite.json", text.encode())


LEARNT = 0.2  # share of the way from guessing to perfect accuracy


def judged_at(epochs: int, steps: int) -> int:
    """The epoch (from 0) whose loss tells whether a run learns: the first that ends after at least
    `SETTLED` steps, as every run starts like guessing. `steps` is per epoch."""
    return min(epochs, math.ceil(SETTLED / steps)) - 1


def not_learning(loss: float, accuracy: float, classes: int, rate: str) -> str | None:
    """A warning if an epoch's mean loss is no better than guessing, ln(classes), and its accuracy
    is low, too: a loss may have terms besides the cross-entropy, such as a gate cost.

    `rate` is the name of the learning rate's setting.
    """
    guessing = 1 / classes
    if loss < 0.99 * math.log(classes) or accuracy > guessing + LEARNT * (1 - guessing):
        return None
    return (
        f"not learning: the mean train loss of the epoch is {loss:.3f}, and guessing among "
        f"{classes} classes gives {math.log(classes):.3f}; causes are a learning rate too high or "
        f"too low ({rate}), too few steps, or labels that do not belong to their images"
    )
