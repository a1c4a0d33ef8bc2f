"""How a found network is trained from scratch: the settings of a recipe, and its schedules.

Sources: Liu et al. 2019, arXiv:1806.09055, section 3; Xu et al. 2020, arXiv:1907.05737; Hundt et
al. 2019, arXiv:1903.09900; public code of all three.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from archsmith.data.augment import Pixels
from archsmith.train.runtime import Precision
from search_spaces.settings import Count, NotNegative, OpenShare, Positive, Range, Share, checked
from strategies.schedules import Power, cosine, cosine_power, exponential, linear

SCHEDULES = {"cosine": cosine, "exponential": exponential, "linear": linear}


@checked
@dataclass(frozen=True)
class Recipe:
    """The settings of one retraining.

    Args:
        layers, channels, stem: size of the final network; `null` keeps the space's.
        optimizer: `sgd`, or `adamw`, whose first beta is `momentum` and whose second is 0.99, and
            which decays matrices alone.
        lr, min_lr: learning rates at the start of the schedule and after the last epoch.
        schedule: a name in `SCHEDULES`, or `cosine_power`.
        power: of `cosine_power`; the other schedules do not read it.
        warmup_epochs: first epochs, whose rate is multiplied by (epoch + 1) / warmup_epochs; with
            `cosine_power` it rises linearly to `lr`, which epoch `warmup_epochs` (from 0), at most
            the last but one, has.
        clip: largest norm of the gradient; `null` for no limit.
        auxiliary_weight: factor of the auxiliary head's loss; 0 leaves the head out.
        drop_path: probability, raised linearly from 0: drop_path * epoch / epochs.
        crop, flip, cutout: augmentation; `null` keeps the data's.
        ema: decay per step of a moving average of weights, then the result; `null` for none.
        precision: `float32`, or `bfloat16` autocast of the forward pass.
        class_weights: `balanced` weighs an image of class c by n / (k n_c), of n images in k
            classes, so that all classes count alike and the mean weight is 1; `null` for none.
        teacher: `full` also learns from the space's unpruned network, which is trained first by the
            same recipe; `null` for none.
        distillation, temperature: share of the teacher in the loss, and the temperature of both
            softmaxes, see `archsmith.result.distillation`.
        micro_batches: parts of a batch whose gradients are summed, to save memory; batch norms use
            each part's statistics.

    Raises:
        ValueError: settings that conflict, or one out of its range.
    """

    layers: Count | None
    channels: Count | None
    stem: str | None
    epochs: Count
    batch_size: Annotated[int, Range(ge=2)]
    lr: Positive
    min_lr: NotNegative
    schedule: Literal["cosine", "cosine_power", "exponential", "linear"]
    warmup_epochs: Annotated[int, Range(ge=0)]
    momentum: Share
    nesterov: bool
    weight_decay: NotNegative
    clip: Positive | None
    label_smoothing: Share
    auxiliary_weight: NotNegative
    drop_path: Share
    crop: Pixels | None
    flip: bool | None
    cutout: Pixels | None
    ema: OpenShare | None
    precision: Precision
    micro_batches: Count = 1
    class_weights: Literal["balanced"] | None = None
    teacher: Literal["full"] | None = None
    distillation: Share = 0.9
    temperature: Positive = 4.0
    power: Power = 2.0
    optimizer: Literal["sgd", "adamw"] = "sgd"

    def __post_init__(self) -> None:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr: {self.min_lr} is above lr={self.lr}; lower it")
        if self.schedule == "exponential" and self.min_lr == 0:
            raise ValueError(
                "min_lr: 0 is never approached by a constant factor; set it above 0, or schedule "
                "to cosine"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs: {self.warmup_epochs} is above epochs={self.epochs}; lower it"
            )
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: needs momentum above 0; set it to false")
        if self.nesterov and self.optimizer == "adamw":
            raise ValueError("nesterov: belongs to optimizer=sgd; set it to false")

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
        if self.schedule == "cosine_power":
            warmup = min(self.warmup_epochs, self.epochs - 1) / self.epochs
            shape = {"power": self.power, "warmup": warmup}
            return cosine_power(self.lr, self.min_lr, epoch, self.epochs, **shape)
        lr = SCHEDULES[self.schedule](self.lr, self.min_lr, epoch, self.epochs)
        return lr * min(1.0, (epoch + 1) / self.warmup_epochs) if self.warmup_epochs else lr

    def drop_path_at(self, epoch: int) -> float:
        """The drop-path probability of an epoch (from 0). DARTS public code."""
        return self.drop_path * epoch / self.epochs
