"""Which images a folder holds: `train/<class>/*`, `test/<class>/*` and, if wanted, `val/<class>/*`.

Hidden files, other files than images, nested folders and links back to a parent are passed over.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import DataError

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
