"""Estimates a step on large images from steps on small ones: feature maps scale with image area."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from archsmith.search.time_budget import timed
from archsmith.train.available import Memory, memory_of
from archsmith.train.memory_probe import step_memory
from search_spaces.space import Space
from search_spaces.stems import STEMS

SMALLER = 4  # least reduction per side at which an estimate is worthwhile
FEW, MORE = 2, 16  # images per micro-batch in the two timed batches
PLAUSIBLE = 3.0  # seconds; a step of at most this is measured directly
Prepared = Callable[[int], Callable[[], object]]  # batch size -> a step on that many images


@dataclass(frozen=True)
class Estimate:
    """Peak memory in bytes and seconds of one step.

    `low` extrapolates the growth between the two batch sizes, `high` scales all of the time.
    """

    bytes: int
    low: float
    high: float

    @property
    def seconds(self) -> dict[str, float]:
        return {"median": (self.low + self.high) / 2, "low": self.low, "high": self.high}

    def plausible(self, memory: Memory) -> bool:
        """Whether the step can be measured: it is short and fits into half the free memory."""
        return self.seconds["median"] <= PLAUSIBLE and self.bytes <= memory.free / 2


def shrunk(space: Space) -> tuple[Space, float]:
    """The space at a smaller image size, and the ratio of pixels, large over small.

    The ratio is 1 if the images are not large.
    """
    C, H, W = space.input_shape
    times = min(H, W) // STEMS[space.stem].side
    if times < SMALLER:
        return space, 1.0
    small = (C, H // times, W // times)
    return space.resize(input_shape=small), H * W / (small[1] * small[2])


def estimated(prepared: Prepared, images: float, parts: int, device: torch.device) -> Estimate:
    """Estimates a step on `images` images of the size `prepared` uses, in `parts` micro-batches."""
    few, more = (parts * size for size in (FEW, MORE))
    need = step_memory(prepared, parts)(images)
    took = [min(timed(prepared(size), device, time.perf_counter)) for size in (few, more)]
    each = max(0.0, took[1] - took[0]) / (more - few)
    high = took[1] * images / more
    return Estimate(need, min(took[1] + each * (images - more), high), high)


def foreseen(
    full: Space,
    prepared: Callable[[Space], Prepared],
    images: int,
    parts: int,
    device: torch.device,
) -> Estimate | None:
    """Estimates a step; None if it can be measured, as it is short or its images are small.

    prepared: prepares steps in a space of other image sizes.
    """
    space, ratio = shrunk(full)
    if ratio == 1:
        return None
    estimate = estimated(prepared(space), images * ratio, parts, device)
    return None if estimate.plausible(memory_of(device)) else estimate
