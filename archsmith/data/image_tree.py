"""Finds the images in a folder: `train/<class>/*`, `test/<class>/*` and optionally `val/<class>/*`.

Images in subfolders belong to the class, too. Skipped entries are counted by reason: hidden files,
files that are not images, entries next to the class folders or the parts, links to a parent folder.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from archsmith.data.listing import HIDDEN, LOOP, PassedOver, images_below, listed
from archsmith.data.names import canonical, printable
from archsmith.errors import DataError

log = logging.getLogger(__name__)

PARTS = ("train", "test", "val")
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
        """Names, sizes and classes as bytes for the fingerprint; no image is read."""
        return json.dumps([self.files, self.sizes, self.labels.tolist()]).encode()


def join(parts: Sequence[Part]) -> Part:
    """Concatenates parts."""
    files = tuple(file for part in parts for file in part.files)
    sizes = tuple(size for part in parts for size in part.sizes)
    return Part(parts[0].root, files, torch.cat([part.labels for part in parts]), sizes)


class Tree(NamedTuple):
    """The content of an image folder."""

    classes: tuple[str, ...]  # in alphabetical order
    parts: dict[str, Part]  # train, test and val if it exists
    passed_over: PassedOver


def scan(root: str | None) -> Tree:
    """The classes and the parts; skipped entries are logged.

    Raises:
        DataError: the folder or a part does not exist, there are fewer than 2 classes, a class has
            no images, a part has a class that `train` lacks, or `val` lacks a class.
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
    passed_over = PassedOver()
    names = {part: _classes(folder / part, passed_over) for part in PARTS}
    classes = tuple(names["train"])
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
    parts = {
        part: _part(folder, part, names[part], classes, passed_over)
        for part in names
        if names[part]
    }
    if "test" not in parts:
        raise DataError(f"{folder}/test: no class folders, expected {LAYOUT}; add test images")
    beside = [entry.name for entry in listed(folder) if entry.name not in PARTS]
    passed_over.add("beside train/ and test/", beside)
    return Tree(classes, parts, passed_over)


def _classes(folder: Path, passed_over: PassedOver) -> dict[str, list[Path]]:
    """Class name -> its folders; empty if `folder` does not exist.

    Folders whose names differ only in Unicode normalisation are one class. A link to a parent
    folder is not a class.
    """
    if not folder.is_dir():
        return {}
    here, found = folder.resolve(), dict[str, list[Path]]()
    for entry in listed(folder):
        reason = _no_class(entry, here)
        if reason is None:
            found.setdefault(canonical(entry.name), []).append(Path(entry.path))
        else:
            passed_over.add(reason, [f"{folder.name}/{entry.name}"])
    return dict(sorted(found.items()))


def _no_class(entry: os.DirEntry[str], here: Path) -> str | None:
    if entry.name.startswith("."):
        return HIDDEN
    if not os.path.isdir(entry):
        return "beside the class folders"
    return LOOP if here.is_relative_to(Path(entry).resolve()) else None


def _part(
    root: Path,
    part: str,
    folders: Mapping[str, Sequence[Path]],
    classes: Sequence[str],
    passed_over: PassedOver,
) -> Part:
    files, labels, sizes = [], [], []
    for name, places in folders.items():
        here = PassedOver()
        found = [entry for place in places for entry in images_below(root, place, here)]
        if not found:
            raise DataError(
                f"{root}/{part}/{name}: no images, expected files that Pillow opens, as .jpg or "
                f".png, or .npy{_instead(here)}; add some, or delete the folder"
            )
        passed_over.update(here)
        files += [Path(entry).relative_to(root).as_posix() for entry in found]
        sizes += [entry.stat().st_size for entry in found]
        labels += [classes.index(name)] * len(found)
    if part == "test":  # read only at the end of a run, so empty files are reported now
        for file, size in zip(files, sizes, strict=True):
            if size == 0:
                name = printable(str(root / file))
                log.warning("data: %s is empty; the final evaluation will not read it", name)
    return Part(root, tuple(files), torch.tensor(labels), tuple(sizes))


def _instead(passed_over: PassedOver) -> str:
    said = "; ".join(passed_over.lines())
    return f", found {said}" if said else ""
