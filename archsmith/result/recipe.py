"""How a found network is trained from scratch: the settings of a recipe, and its schedules.

Sources: Liu et al. 2019, arXiv:1806.09055, section 3; Xu et al. 2020, arXiv:1907.05737; public
code of both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from archsmith.numbers import is_number
from archsmith.train.runtime import PRECISIONS


def cosine(lr: float, min_lr: float, epoch: int, epochs: int) -> float:
    """Half a cosine from `lr` at epoch 0 to `min_lr` after the last epoch."""
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def exponential(lr: float, min_lr: float, epoch: int, epochs: int) -> float:
    """A constant factor per epoch, from `lr` at epoch 0 to `min_lr` after the last epoch."""
    return lr * (min_lr / lr) ** (epoch / epochs)


def linear(lr: float, min_lr: float, epoch: int, epochs: int) -> float:
    """A line that would reach `min_lr` 5 epochs before the end, then a flatter one to the end.

    Source: PC-DARTS public code for ImageNet. With fewer than 10 epochs the flatter line takes half
    of them.
    """
    tail, left = min(5, epochs // 2), epochs - epoch
    height = left - tail if left > tail else left / tail
    return min_lr + (lr - min_lr) * height / (epochs - tail)


SCHEDULES = {"cosine": cosine, "exponential": exponential, "linear": linear}

Rule = tuple[str, Callable[[Any], bool]]  # what is expected, and a test for it


def _whole(least: int) -> Rule:
    expected = f"a whole number of at least {least}"
    return expected, lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least


def _number(expected: str, test: Callable[[float], bool]) -> Rule:
    return f"a number {expected} (with a dot: 3.0e-4)", lambda v: is_number(v) and test(v)


def _one_of(known: Any) -> Rule:
    return f"one of {', '.join(known)}", lambda v: isinstance(v, str) and v in known


_positive = _number("above 0", lambda v: v > 0)
_at_least_0 = _number("of at least 0", lambda v: v >= 0)
_share = _number("in [0, 1)", lambda v: 0 <= v < 1)
_truth: Rule = ("true or false", lambda v: isinstance(v, bool))

RULES: dict[str, Rule] = {
    "layers": _whole(1),
    "channels": _whole(1),
    "stem": ("a name", lambda v: isinstance(v, str)),
    "epochs": _whole(1),
    "batch_size": _whole(2),
    "micro_batches": _whole(1),
    "lr": _positive,
    "min_lr": _at_least_0,
    "schedule": _one_of(SCHEDULES),
    "warmup_epochs": _whole(0),
    "momentum": _share,
    "nesterov": _truth,
    "weight_decay": _at_least_0,
    "clip": _positive,
    "label_smoothing": _share,
    "auxiliary_weight": _at_least_0,
    "drop_path": _share,
    "crop": _whole(0),
    "flip": _truth,
    "cutout": _whole(0),
    "ema": _number("in (0, 1)", lambda v: 0 < v < 1),
    "precision": _one_of(PRECISIONS),
}
NULLABLE = ("layers", "channels", "stem", "clip", "crop", "flip", "cutout", "ema")


@dataclass(frozen=True)
class Recipe:
    """The settings of one retraining.

    Args:
        layers, channels, stem: size of the final network; `null` keeps the space's.
        lr, min_lr: learning rates at the start of the schedule and after the last epoch.
        schedule: a name in `SCHEDULES`.
        warmup_epochs: first epochs, whose rate is multiplied by (epoch + 1) / warmup_epochs.
        clip: largest norm of the gradient; `null` for no limit.
        auxiliary_weight: factor of the auxiliary head's loss; 0 leaves the head out.
        drop_path: probability, raised linearly from 0: drop_path * epoch / epochs.
        crop, flip, cutout: augmentation; `null` keeps the data's.
        ema: decay per step of a moving average of weights, then the result; `null` for none.
        precision: `float32`, or `bfloat16` autocast of the forward pass.
        micro_batches: parts of a batch whose gradients are summed, to save memory; batch norms use
            each part's statistics.

    Raises:
        ValueError: a setting out of its range, named `retrain.<setting>`.
    """

    layers: int | None
    channels: int | None
    stem: str | None
    epochs: int
    batch_size: int
    lr: float
    min_lr: float
    schedule: str
    warmup_epochs: int
    momentum: float
    nesterov: bool
    weight_decay: float
    clip: float | None
    label_smoothing: float
    auxiliary_weight: float
    drop_path: float
    crop: int | None
    flip: bool | None
    cutout: int | None
    ema: float | None
    precision: str
    micro_batches: int = 1

    def __post_init__(self) -> None:
        for name, (expected, test) in RULES.items():
            value = getattr(self, name)
            if not (value is None and name in NULLABLE) and not test(value):
                null = " or null" if name in NULLABLE else ""
                raise ValueError(f"retrain.{name}: expected {expected}{null}, found {value!r}")
        if self.min_lr > self.lr:
            raise ValueError(
                f"retrain.min_lr: {self.min_lr} is above retrain.lr={self.lr}; lower it"
            )
        if self.schedule == "exponential" and self.min_lr == 0:
            raise ValueError(
                "retrain.min_lr: 0 is never approached by a constant factor; set it above 0, "
                "or retrain.schedule=cosine"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"retrain.warmup_epochs: {self.warmup_epochs} is above "
                f"retrain.epochs={self.epochs}; lower it"
            )
        if self.nesterov and self.momentum == 0:
            raise ValueError("retrain.nesterov: needs retrain.momentum above 0; set it to false")

    @property
    def size(self) -> dict[str, Any]:
        """The arguments for resizing the space: `space.resize(**recipe.size)`."""
        return self._given("layers", "channels", "stem")

    @property
    def augment(self) -> dict[str, Any]:
        """The augmentation settings that replace the data's."""
        return self._given("crop", "flip", "cutout")

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch (from 0)."""
        lr = SCHEDULES[self.schedule](self.lr, self.min_lr, epoch, self.epochs)
        return lr * min(1.0, (epoch + 1) / self.warmup_epochs) if self.warmup_epochs else lr

    def drop_path_at(self, epoch: int) -> float:
        """The drop-path probability of an epoch (from 0). DARTS public code."""
        return self.drop_path * epoch / self.epochs
