"""Images of a folder: small sets are decoded into memory, large ones on demand."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from archsmith import interrupt
from archsmith.data.image_file import attempt, first_line
from archsmith.data.loader import Images, Shape, pixel_counts, pixel_digest
from archsmith.data.parts import Part
from archsmith.errors import DataError, Interrupted, OutOfMemory
from archsmith.parallel.portions import Portion
from search_spaces.settings import NotNegative, Range, checked

log = logging.getLogger(__name__)

SKIPPED = 0.01  # largest share of unreadable images under `on_error: skip`
OnError = Literal["abort", "skip"]
Workers = Annotated[int, Range(ge=0)]
Value = TypeVar("Value")


class ImageFiles(Images):
    """Images that stay on disk and are decoded by `workers` processes when a batch needs them.

    With data parallelism, each process decodes its portion of a batch and receives the rest.
    """

    def __init__(
        self, part: Part, shape: Shape, workers: int, counts: Tensor, digests: list[bytes]
    ):
        super().__init__(torch.empty(0, *shape, dtype=torch.uint8), part.labels, part.files)
        self.part, self.workers = part, workers
        self.counts, self.digests = counts, digests  # of the pixels, when all were read

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        portions = [Portion.mine(len(index)) for index in indices]
        own = [index[p.start : p.stop] for index, p in zip(indices, portions, strict=True)]
        # not kept in a variable: the worker processes must end with it, also after an error
        for index, portion, images in zip(
            indices, portions, _read(self.part, own, self.workers, partial(_stacked, self.shape)),
            strict=True,
        ):  # fmt: skip
            if isinstance(images, str):
                raise DataError(
                    f"{images}: readable before, expected it still is; repair it, resume"
                )
            index = index.to(self.device, non_blocking=True)
            images = portion.gathered(images.to(self.device, non_blocking=True))
            yield images, self._labels[index]

    def content(self) -> bytes:
        return self.part.identity()


def _read(
    part: Part, indices: Iterable[Tensor], workers: int, read: Callable[[list[str]], Value]
) -> Iterator[Value]:
    """What `read` makes of the paths of each batch, in `workers` processes."""
    return _living(
        DataLoader(
            part.paths(),  # type: ignore[arg-type]
            batch_sampler=[index.tolist() for index in indices],
            num_workers=workers,
            collate_fn=read,
            generator=torch.Generator(),  # else it would draw from the global generator
            worker_init_fn=interrupt.ignore_signals,
        )
    )


def _living(batches: Iterable[Value]) -> Iterator[Value]:
    """Yields the batches. Raises OutOfMemory if a worker process died, most likely for lack of
    memory, or Interrupted if the run was asked to stop."""
    try:
        yield from batches
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        if interrupt.requested():  # the signal hit a worker that had no handler yet
            raise Interrupted(
                "data: stopped while images were read; run the same command to continue from the "
                "last checkpoint"
            ) from error
        raise OutOfMemory(
            f"data: {first_line(error)}; expected enough memory and shared memory (/dev/shm) for "
            "the worker processes; lower data.workers (0 decodes without), or raise either"
        ) from error


def _stacked(shape: Shape, paths: list[str]) -> Tensor | str:
    """The batch or its first failure; an exception would arrive with a worker's long traceback."""
    images = []
    for path in paths:
        found = attempt(path, shape)
        if isinstance(found, str):
            return found
        images.append(found)
    return torch.from_numpy(np.stack(images))


class Examined(NamedTuple):
    """What a first reading of some files shows."""

    images: Tensor  # (n, C, H, W) uint8, the readable ones; (0, C, H, W) if they are not kept
    counts: Tensor  # (C, 256), their histogram
    digests: list[bytes]  # of the pixels of the readable ones
    reasons: list[str]  # why each file cannot be read; '' if it can


def _examined(shape: Shape, keep: bool, paths: list[str]) -> Examined:
    found = [attempt(path, shape) for path in paths]
    images = [image for image in found if not isinstance(image, str)]
    stacked = torch.from_numpy(np.stack([*images, np.zeros(shape, np.uint8)])[:-1])
    return Examined(
        stacked if keep else stacked[:0],
        pixel_counts(stacked),
        [pixel_digest(image) for image in images],
        [reason if isinstance(reason, str) else "" for reason in found],
    )


def examined(part: Part, shape: Shape, workers: int, keep: bool = False) -> Iterator[Examined]:
    """Reads every file once, 64 at a time. Raises Interrupted."""
    order = torch.arange(len(part.files)).split(64)
    for batch in _read(part, order, workers, partial(_examined, shape, keep)):
        interrupt.check("data")
        yield batch


@checked
def load(
    part: Part, shape: Shape, *, memory_mb: NotNegative, workers: Workers, on_error: OnError
) -> tuple[Images, Tensor]:
    """The readable images and their positions in `part`. Every file is decoded once.

    Sets of at most `memory_mb` (10^6 bytes, decoded) are kept in memory, larger ones on disk.

    Raises:
        DataError: there are unreadable files, or more than 1% with `on_error="skip"`.
        ValueError: an unknown `on_error`, or a negative number of workers.
    """
    count = len(part.files)
    log.info("data: reading %d images below %s", count, part.root)
    keep = count * math.prod(shape) <= memory_mb * 1e6
    pixels, stop = torch.empty(count if keep else 0, *shape, dtype=torch.uint8), 0
    counts = torch.zeros(shape[0], 256, dtype=torch.int64)
    digests, reasons = list[bytes](), list[str]()
    for batch in examined(part, shape, 0 if keep else workers, keep):
        start, stop = stop, stop + len(batch.images)
        pixels[start:stop] = batch.images
        counts += batch.counts
        digests += batch.digests
        reasons += batch.reasons
    kept = _kept(part, reasons, on_error)
    chosen = part.take(kept)
    if keep:
        return Images(pixels[:stop], chosen.labels, chosen.files), kept
    return ImageFiles(chosen, shape, workers, counts, digests), kept


def _kept(part: Part, failed: Sequence[str], on_error: str) -> Tensor:
    """Positions of the readable images; logs the others. Raises DataError if too many fail."""
    reasons, count = [reason for reason in failed if reason], len(failed)
    refused = on_error == "abort" or len(reasons) > SKIPPED * count
    for reason in reasons:
        log.warning("data: %s %s", "cannot read" if refused else "skipped", reason)
    if reasons and refused:
        more = ", ..." if len(reasons) > 10 else ""
        raise DataError(
            f"{part.root}: {len(reasons)} of {count} images cannot be read: "
            f"{', '.join(reasons[:10])}{more}; expected all readable; repair or delete them"
            + (", or set data.on_error=skip" if on_error == "abort" else " (skip allows 1%)")
        )
    return torch.tensor([i for i, reason in enumerate(failed) if not reason], dtype=torch.int64)
