"""What a step on large images takes, from steps on small ones: maps grow with the images' area."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from archsmith.search.time_budget import timed
from archsmith.train.available import Memory, memory_of
from archsmith.train.memory_probe import step_memory
from search_spaces.space import Space

SIDE = {"small": 32, "imagenet": 128}  # stem -> the smaller side of the small images
SMALLER = 4  # times in each side, from which on it is worth it
FEW, MORE = 2, 16  # images of the timed batches, in each part
PLAUSIBLE = 3.0  # seconds of a step up to which it is measured itself
Prepared = Callable[[int], Callable[[], object]]  # images of a batch -> a step on so many


@dataclass(frozen=True)
class Estimate:
    """Of a step: bytes at its peak, and seconds.

    `low` is as if only that grew which grew from few images to more, `high` as if all did.
    """

    bytes: int
    low: float
    high: float

    @property
    def seconds(self) -> dict[str, float]:
        return {"median": (self.low + self.high) / 2, "low": self.low, "high": self.high}

    def plausible(self, memory: Memory) -> bool:
        """Whether it is worth measuring: short, and in half the memory that is free."""
        return self.seconds["median"] <= PLAUSIBLE and self.bytes <= memory.free / 2


def shrunk(space: Space) -> tuple[Space, float]:
    """The space for smaller images, and how many of these have the pixels of a large one.

    The number is 1 where the images are not large.
    """
    C, H, W = space.input_shape
    times = min(H, W) // SIDE.get(space.stem, min(SIDE.values()))
    if times < SMALLER:
        return space, 1.0
    small = (C, H // times, W // times)
    return space.resize(input_shape=small), H * W / (small[1] * small[2])


def estimated(prepared: Prepared, images: float, parts: int, device: torch.device) -> Estimate:
    """Of a step on `images` images of the size that `prepared` takes, computed in `parts` parts."""
    few, more = (parts * size for size in (FEW, MORE))
    need = step_memory(prepared, parts)(images)
    took = [min(timed(prepared(size), device, time.perf_counter)) for size in (few, more)]
    each = max(0.0, took[1] - took[0]) / (more - few)
    high = took[1] * images / more
    return Estimate(need, min(took[1] + each * (images - more), high), high)


def measurable(estimate: Estimate | None, device: torch.device) -> bool:
    """Whether to measure a step of which this is foreseen; None: of images that are not large."""
    return estimate is None or estimate.plausible(memory_of(device))
