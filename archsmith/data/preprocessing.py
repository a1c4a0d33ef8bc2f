"""How raw images are converted to a network's input; stored with the trained weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from archsmith.data.image_file import RESIZE
from archsmith.data.loader import Normalise
from archsmith.data.names import canonical

CHARACTERS = "characters"  # in place of a method of resizing: the input is a text's ids, not pixels


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image file to the network's input, and the meaning of its logits.

    It is determined by the training images and stored with the weights; evaluation, exports and
    `archsmith.find` read it from there, also for other images.

    Args:
        input_shape: (C, H, W). Images of another size are resized to it without keeping the aspect
            ratio.
        mean, std: per channel, on the scale 0 to 1.
        resize: the resizing method, of which one is supported; `CHARACTERS` for text, whose
            classes are characters, the first of them all that are unknown.

    Raises:
        ValueError: inconsistent values.
    """

    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = RESIZE

    def __post_init__(self) -> None:
        channels = self.input_shape[0]
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        for name, holds, expected in (
            ("input_shape", all(type(n) is int and n > 0 for n in self.input_shape), "(C, H, W)"),
            ("mean", finite and len(self.mean) == channels, f"{channels} numbers, one a channel"),
            (
                "std",
                finite and len(self.std) == channels and min(self.std) > 0,
                f"{channels} numbers above 0, one a channel",
            ),
            (
                "resize",
                self.resize in (RESIZE, CHARACTERS),
                f"'{RESIZE}', as of the version that wrote them",
            ),
        ):
            if not holds:
                found = getattr(self, name)
                raise ValueError(f"preprocessing: {name} {found!r}, expected {expected}")

    @property
    def reads_text(self) -> bool:
        """Whether inputs are ids of characters (B, 1, 1, T), else pixels."""
        return self.resize == CHARACTERS

    @property
    def characters(self) -> list[str]:
        """Of text: the characters that ids from 1 stand for."""
        return [
            name if len(name) == 1 else name.encode().decode("unicode_escape")
            for name in self.classes[1:]
        ]

    @property
    def values(self) -> int:
        """How many values a raw input may have, from 0."""
        return len(self.classes) if self.reads_text else 256

    @property
    def normalise(self) -> Normalise:
        return Normalise(torch.tensor(self.mean), torch.tensor(self.std))

    def about(self) -> dict[str, Any]:
        """A JSON form; the inverse is `of`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `about`. Raises KeyError, TypeError or ValueError for anything else."""
        classes = tuple(map(canonical, about["classes"]))
        mean, std = (tuple(map(float, about[name])) for name in ("mean", "std"))
        C, H, W = about["input_shape"]
        return cls(classes, (C, H, W), mean, std, about["resize"])

    def check_fits(self, input_shape: Sequence[int], classes: int) -> None:
        """Raises ValueError unless it fits a network of this input shape and number of classes."""
        if (self.input_shape, len(self.classes)) != (tuple(input_shape), classes):
            raise ValueError(
                f"preprocessing: for {self.input_shape} and {len(self.classes)} classes, found a "
                f"network of {tuple(input_shape)} and {classes}; give that of its training images"
            )

    def check(self, images: Tensor) -> None:
        """Raises ValueError unless images are raw: (B, C, H, W), uint8 or float from 0 to 1."""
        if images.dim() != 4 or tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(
                f"images: shape {tuple(images.shape)}, expected (B, "
                f"{', '.join(map(str, self.input_shape))}); resize them ({self.resize}), and give "
                "one image as image[None]"
            )
        if images.dtype == torch.uint8:
            return
        if not images.is_floating_point():
            raise ValueError(
                f"images: {images.dtype}, expected uint8 of 0 to 255, or float of 0 to 1; convert "
                "them"
            )
        least, most = (float(value) for value in images.aminmax()) if len(images) else (0.0, 0.0)
        if not 0 <= least <= most <= 1:
            raise ValueError(
                f"images: float of {least:.3g} to {most:.3g}, expected 0 to 1, not normalised; "
                "give pixels as uint8, or divided by 255"
            )
