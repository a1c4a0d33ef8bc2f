"""Images in a folder: `train/<class>/*`, `test/<class>/*` and, if wanted, `val/<class>/*`.

Hidden files, other files than images, nested folders and links back to a parent are passed over.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine import interrupt
from engine.data.augment import Images, digest, histogram
from engine.data.image_file import attempt, first_line
from engine.errors import DataError, OutOfMemory
from engine.parallel.data_parallel import Portion

log = logging.getLogger(__name__)

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".npy",
)
LAYOUT = "train/<class>/ and test/<class>/"
SKIPPED = 0.01  # share of unreadable images that `on_error: skip` accepts


@dataclass(frozen=True)
class Part:
    """The image files of one part: paths below the root, class indices, sizes in bytes."""

    root: Path
    files: tuple[str, ...]
    labels: Tensor  # (N,) int64
    sizes: tuple[int, ...]

    def take(self, index: Tensor) -> "Part":
        files, sizes = zip(*[(self.files[i], self.sizes[i]) for i in index.tolist()], strict=True)
        return Part(self.root, files, self.labels[index], sizes)

    def paths(self) -> list[str]:
        return [os.path.join(self.root, file) for file in self.files]

    def identity(self) -> bytes:
        """Names, sizes and classes; no image is read."""
        return json.dumps([self.files, self.sizes, self.labels.tolist()]).encode()


def join(parts: Sequence[Part]) -> Part:
    """One part after the other."""
    files = tuple(file for part in parts for file in part.files)
    sizes = tuple(size for part in parts for size in part.sizes)
    return Part(parts[0].root, files, torch.cat([part.labels for part in parts]), sizes)


def scan(root: str | None) -> tuple[tuple[str, ...], dict[str, Part]]:
    """The classes in alphabetical order, and the parts `train`, `test` and, if there is one, `val`.

    Raises:
        DataError: no such folder, a part is missing, fewer than 2 classes, a class without images,
            a class that `train` does not have, or one that `val` lacks.
    """
    if root is None:
        raise DataError(f"data.root: null, expected a folder with {LAYOUT}; set data.root to it")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected {LAYOUT}; correct data.root")
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise DataError(
                f"{folder}: no {part}/ folder, expected {LAYOUT}; add it, or correct data.root"
            )
    names = {part: _classes(folder / part) for part in ("train", "test", "val")}
    classes = names["train"]
    if len(classes) < 2:
        raise DataError(
            f"{folder}/train: {len(classes)} class folder(s) ({', '.join(classes) or 'none'}), "
            "expected at least 2; add one folder per class"
        )
    for part in ("test", "val"):
        for name in sorted(set(names[part]) - set(classes)):
            raise DataError(
                f"{folder}/{part}/{name}: class unknown in train/, expected one of "
                f"{', '.join(classes[:10])}; rename or delete it, or add train/{name}/"
            )
    for name in sorted(set(classes) - set(names["val"])) if names["val"] else ():
        raise DataError(
            f"{folder}/val: no class folder '{name}', expected all classes of train/; "
            "add it, or delete val/ to split train/ instead"
        )
    parts = {part: _part(folder, part, names[part], classes) for part in names if names[part]}
    if "test" not in parts:
        raise DataError(f"{folder}/test: no class folders, expected {LAYOUT}; add test images")
    return classes, parts


def _classes(folder: Path) -> tuple[str, ...]:
    """Names of the class folders, none if `folder` is missing. A link to a parent is no class."""
    if not folder.is_dir():
        return ()
    inner = [p for p in _listed(folder) if not p.name.startswith(".") and os.path.isdir(p)]
    here = folder.resolve()
    return tuple(sorted(p.name for p in inner if not here.is_relative_to(Path(p).resolve())))


def _part(root: Path, part: str, names: Sequence[str], classes: Sequence[str]) -> Part:
    files, labels, sizes = [], [], []
    for name in names:
        found = sorted(
            (entry for entry in _listed(root / part / name) if _is_image(entry)),
            key=lambda entry: entry.name,
        )
        if not found:
            raise DataError(
                f"{root}/{part}/{name}: no images, expected files ending in {', '.join(SUFFIXES)}; "
                "add some, or delete the folder"
            )
        files += [f"{part}/{name}/{entry.name}" for entry in found]
        sizes += [entry.stat().st_size for entry in found]
        labels += [classes.index(name)] * len(found)
    if part == "test":  # not opened before the end of a run, so what their size says is said now
        for file, size in zip(files, sizes, strict=True):
            if size == 0:
                log.warning("data: %s is empty; the final evaluation will not read it", root / file)
    return Part(root, tuple(files), torch.tensor(labels), tuple(sizes))


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); expected a readable folder; "
            "correct its permissions or data.root"
        ) from error


def _is_image(entry: os.DirEntry[str]) -> bool:
    known = entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
    return known and os.path.isfile(entry)  # unlike entry.is_file(), False for a link to itself


class ImageFiles(Images):
    """Images that stay on disk and are decoded by `workers` processes when a batch needs them.

    Among several processes each decodes its portion of a batch and gets the others' from them.
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
        """Of the pixels, as they were when every file was read at the start."""
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
        generator=torch.Generator(),  # or it would draw from the global stream
        worker_init_fn=interrupt.ignore_signals,
    )


def _living(batches: DataLoader) -> Iterator[Any]:
    """The batches. Raises OutOfMemory where a worker process died: mostly for lack of memory."""
    try:
        yield from batches
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OutOfMemory(
            f"data: {first_line(error)}; expected enough memory and shared memory (/dev/shm) for "
            "the worker processes; lower data.workers (0 decodes without), or raise either"
        ) from error


def _stacked(attempts: list[np.ndarray | str]) -> Tensor | str:
    """The batch or its first failure: an error raised in a worker arrives as a page of text."""
    images = [image for image in attempts if not isinstance(image, str)]
    failed = [reason for reason in attempts if isinstance(reason, str)]
    return failed[0] if failed else torch.from_numpy(np.stack(images))


def _counted(attempts: list[np.ndarray | str]) -> tuple[Tensor, list[str], list[bytes]]:
    """The histogram and the digests of the images, and per attempt why it failed, or ''."""
    images = [image for image in attempts if not isinstance(image, str)]
    counts = histogram(torch.from_numpy(np.stack(images))) if images else torch.tensor(0)
    reasons = [a if isinstance(a, str) else "" for a in attempts]
    return counts, reasons, [digest(image) for image in images]


def load(
    part: Part, shape: tuple[int, int, int], *, memory_mb: float, workers: int, on_error: str
) -> tuple[Images, Tensor]:
    """The images that can be read, and their positions in `part`. Every file is decoded once.

    Up to `memory_mb` (10^6 bytes) decoded they are kept in memory, beyond that on disk.

    Raises:
        DataError: unreadable files, or with `on_error="skip"` more than 1% of them.
        ValueError: another `on_error`, or fewer than 0 workers.
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
    """Path and reason of every file that cannot be read; nothing else is kept of any."""
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
    """Positions without a failure; logs every other. Raises DataError where none may be skipped."""
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
