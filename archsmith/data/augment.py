"""Augmentation of training images: crop, flip and Cutout, as functions of given random draws."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.settings import Range, checked, setting
from strategies.regularisation.cutout import cutout


def generator(*key: object) -> torch.Generator:
    """A CPU generator seeded with a hash of the key."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def crop(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Crops of the original size from the zero-padded images.

    images (B, C, H, W); offsets (B, 2), row and column of each crop's corner, 0 to 2 * padding.
    """
    H, W = images.shape[2:]
    windows = F.pad(images, [padding] * 4).unfold(2, H, 1).unfold(3, W, 1)  # a view: no copy
    image = torch.arange(len(images), device=images.device)
    return windows[image, :, offsets[:, 0], offsets[:, 1]]


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirrors the chosen images left to right: images (B, C, H, W), chosen (B,) bool."""
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


Pixels = Annotated[int, Range(ge=0)]


@checked
@dataclass(frozen=True)
class Augment:
    """Random crop, flip and Cutout, drawn per image.

    Args:
        crop: pixels of black padding around the image before the crop; 0 is off.
        flip: mirror left to right with probability 1/2.
        cutout: side of the zeroed square in pixels; 0 is off.

    Raises:
        ValueError: an unknown or missing setting, a negative number, or a `flip` that is not a
            bool.
    """

    crop: Pixels
    flip: bool
    cutout: Pixels

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Augment":
        known = [field.name for field in fields(cls)]
        if set(settings) != set(known):
            found = ", ".join(settings) or "nothing"
            raise ValueError(f"data.augment: {found}; expected exactly {', '.join(known)}")
        with setting("data.augment"):
            return cls(**settings)

    def check(self, shape: Sequence[int]) -> None:
        """Raises ValueError if padding or square could erase the image: both must be smaller."""
        _, H, W = shape
        for name, value in (("crop", self.crop), ("cutout", self.cutout)):
            if value >= min(H, W):
                raise ValueError(
                    f"data.augment.{name}: {value} could blank a whole {H}x{W} image; "
                    f"set it below {min(H, W)}"
                )

    def draw(self, count: int, shape: Sequence[int], source: torch.Generator) -> Tensor:
        """(B, 5): crop row and column, flip, cutout row and column; drawn even if unused."""
        _, H, W = shape
        ends = (2 * self.crop + 1, 2 * self.crop + 1, 2, H, W)
        return torch.stack([torch.randint(end, (count,), generator=source) for end in ends], 1)

    def move(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crops and flips uint8 images (B, C, H, W)."""
        images = crop(images, draws[:, :2], self.crop) if self.crop else images
        return flip(images, draws[:, 2] == 1) if self.flip else images

    def cut(self, x: Tensor, draws: Tensor) -> Tensor:
        """Applies Cutout to normalised images (B, C, H, W)."""
        return cutout(x, draws[:, 3:], self.cutout) if self.cutout else x
