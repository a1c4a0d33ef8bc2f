"""Images of a folder: small sets are decoded into memory, large ones on demand."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from archsmith import interrupt
from archsmith.data.image_file import attempt, first_line
from archsmith.data.image_tree import Part
from archsmith.data.loader import Images, digest, histogram
from archsmith.errors import DataError, Interrupted, OutOfMemory
from archsmith.parallel.data_parallel import Portion

log = logging.getLogger(__name__)

SKIPPED = 0.01  # largest share of unreadable images under `on_error: skip`


class ImageFiles(Images):
    """Images that stay on disk and are decoded by `workers` processes when a batch needs them.

    With data parallelism, each process decodes its portion of a batch and receives the rest.
    """

    def __init__(
        self,
        part: Part,
        shape: Sequence[int],
        workers: int,
        counts: Tensor,
        digests: Sequence[bytes],
    ):
        super().__init__(torch.empty(0, *shape, dtype=torch.uint8), part.labels, part.files)
        self.part, self.workers, self.counts, self.digests = part, workers, counts, digests

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        portions = [Portion.mine(len(index)) for index in indices]
        own = [index[p.start : p.stop] for index, p in zip(indices, portions, strict=True)]
        decoded = _decoded(self.part, self.shape, own, self.workers, _stacked)
        for index, portion, images in zip(indices, portions, _living(decoded), strict=True):
            if isinstance(images, str):
                raise DataError(
                    f"{images}: readable before, expected it still is; repair it, resume"
                )
            index = index.to(self.device, non_blocking=True)
            images = portion.gathered(images.to(self.device, non_blocking=True))
            yield images, self._labels[index]

    def histogram(self) -> Tensor:
        return self.counts

    def content(self) -> bytes:
        return self.part.identity()

    def hashes(self, index: Tensor | slice) -> list[bytes]:
        """Digests of the pixels, computed when every file was read at the start."""
        positions = torch.arange(len(self.digests))[index]
        return [self.digests[i] for i in positions.tolist()]


class _Attempts(Dataset):
    def __init__(self, paths: Sequence[str], shape: Sequence[int]):
        self.paths, self.shape = paths, shape

    def __getitem__(self, i: int) -> np.ndarray | str:
        return attempt(self.paths[i], self.shape)


def _decoded(
    part: Part, shape: Sequence[int], indices: Sequence[Tensor], workers: int, collate: Callable
) -> DataLoader:
    return DataLoader(
        _Attempts(part.paths(), shape),
        batch_sampler=[index.tolist() for index in indices],
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # else it would draw from the global generator
        worker_init_fn=interrupt.ignore_signals,
    )


def _living(batches: DataLoader) -> Iterator[Any]:
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


def _stacked(attempts: list[np.ndarray | str]) -> Tensor | str:
    """The batch or its first failure; an exception would arrive with a worker's long traceback."""
    images = [image for image in attempts if not isinstance(image, str)]
    failed = [reason for reason in attempts if isinstance(reason, str)]
    return failed[0] if failed else torch.from_numpy(np.stack(images))


def _counted(attempts: list[np.ndarray | str]) -> tuple[Tensor, list[str], list[bytes]]:
    """Histogram of the images, the reason for each failed attempt ('' if none), and digests."""
    images = [image for image in attempts if not isinstance(image, str)]
    counts = histogram(torch.from_numpy(np.stack(images))) if images else torch.tensor(0)
    reasons = [a if isinstance(a, str) else "" for a in attempts]
    return counts, reasons, [digest(image) for image in images]


def load(
    part: Part, shape: tuple[int, int, int], *, memory_mb: float, workers: int, on_error: str
) -> tuple[Images, Tensor]:
    """The readable images and their positions in `part`. Every file is decoded once.

    Sets of at most `memory_mb` (10^6 bytes, decoded) are kept in memory, larger ones on disk.

    Raises:
        DataError: there are unreadable files, or more than 1% with `on_error="skip"`.
        ValueError: an unknown `on_error`, or a negative number of workers.
    """
    if on_error not in ("abort", "skip"):
        raise ValueError(f"data.on_error: {on_error!r}, expected abort or skip")
    if workers < 0:
        raise ValueError(f"data.workers: {workers}, expected a whole number >= 0")
    count = len(part.files)
    log.info("data: reading %d images below %s", count, part.root)
    if count * math.prod(shape) <= memory_mb * 1e6:
        pixels, failed = np.zeros((count, *shape), np.uint8), [""] * count
        for i, path in enumerate(part.paths()):
            interrupt.check("data")
            found = attempt(path, shape)
            if isinstance(found, str):
                failed[i] = found
            else:
                pixels[i] = found
        kept = _kept(part, failed, on_error)
        every = torch.from_numpy(pixels)
        names = part.take(kept).files
        return Images(every if len(kept) == count else every[kept], part.labels[kept], names), kept
    counts, failed = torch.zeros(shape[0], 256, dtype=torch.int64), []
    digests: list[bytes] = []
    order = torch.arange(count).split(64)
    for batch_counts, reasons, found_digests in _living(
        _decoded(part, shape, order, workers, _counted)
    ):
        interrupt.check("data")
        counts += batch_counts
        failed += reasons
        digests += found_digests
    kept = _kept(part, failed, on_error)
    return ImageFiles(part.take(kept), shape, workers, counts, digests), kept


def unreadable(part: Part, shape: tuple[int, int, int], workers: int) -> list[str]:
    """Path and reason for every unreadable file; no pixels are kept."""
    order = torch.arange(len(part.files)).split(64)
    decoded = _living(_decoded(part, shape, order, workers, _reasons))
    found: list[str] = []
    for reasons in decoded:
        interrupt.check("data")
        found += reasons
    return found


def _reasons(attempts: list[np.ndarray | str]) -> list[str]:
    return [found for found in attempts if isinstance(found, str)]


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
