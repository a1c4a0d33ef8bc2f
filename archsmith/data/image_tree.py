"""Finds the images in a folder: `train/<class>/*`, `test/<class>/*` and optionally `val/<class>/*`;
or `<class>/*` alone, of which a share of every class becomes the test images (`parts`).

Images in subfolders belong to the class, too. Skipped entries are counted by reason: hidden files,
files that are not images, entries next to the class folders or the parts, links to a parent folder.
torchvision's `ImageFolder` counts none of them, and follows a link to a parent folder for ever.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from archsmith.data.image_file import suffixes
from archsmith.data.names import canonical, printable
from archsmith.data.parts import PARTS, Part, with_test
from archsmith.errors import DataError

log = logging.getLogger(__name__)

LAYOUT = "train/<class>/ and test/<class>/, or <class>/ alone"
SPLIT = "test_images.txt"  # beside class folders alone
EXAMPLES = 3
Entry = os.DirEntry[str]


@dataclass
class PassedOver:
    """Counts a folder's skipped entries by reason, with the first few names of each."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if self.counts[reason] <= EXAMPLES:
            self.examples.setdefault(reason, []).append(printable(path))

    def lines(self) -> list[str]:
        """One line per reason, the most frequent first."""
        by_count = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return [f"{n} {reason} (as {self.examples[reason][0]})" for reason, n in by_count]


class Tree(NamedTuple):
    """The content of an image folder."""

    classes: tuple[str, ...]  # in alphabetical order
    parts: dict[str, Part]  # train, test and val if it exists
    passed_over: PassedOver

    @property
    def training(self) -> Part:
        """The images of `train` and, after them, those of `val`."""
        parts = [self.parts[name] for name in ("train", "val") if name in self.parts]
        files = tuple(file for part in parts for file in part.files)
        sizes = tuple(size for part in parts for size in part.sizes)
        return Part(parts[0].root, files, torch.cat([part.labels for part in parts]), sizes)


def scan(root: str | None, test_share: float | None = None) -> Tree:
    """The classes and the parts.

    test_share: for class folders alone, the share of each class that become test images; None is
        0.2.

    Raises:
        DataError: the folder or a part does not exist, there are fewer than 2 classes, a class has
            no images, a part has a class that `train` lacks, or `val` lacks a class.
    """
    if root is None:
        raise DataError(f"data.root: null, expected a folder with {LAYOUT}; set data.root to it")
    folder, passed_over = Path(root).expanduser(), PassedOver()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected {LAYOUT}; correct data.root")
    if not any((folder / part).is_dir() for part in PARTS):
        return _alone(folder, test_share, passed_over)
    if test_share is not None:
        raise DataError(
            f"data.test_share: {test_share}, but {folder} has parts of its own; leave it out, or "
            "set data.root to class folders alone"
        )
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise DataError(
                f"{folder}: no {part}/ folder, expected {LAYOUT}; add it, or correct data.root"
            )
    folders = {part: _classes(folder / part, passed_over) for part in PARTS}
    _check_classes(folder, folders)
    parts = {part: _part(folder, part, folders, passed_over) for part in PARTS if folders[part]}
    for entry in listed(folder):
        if entry.name not in PARTS:
            passed_over.add("beside train/ and test/", entry.name)
    return Tree(tuple(folders["train"]), parts, passed_over)


def _alone(folder: Path, share: float | None, passed_over: PassedOver) -> Tree:
    """The tree of class folders alone."""
    if (folder.parent / "test").is_dir() and folder.name == "train":
        raise DataError(
            f"{folder}: the images of train/ alone; set data.root={printable(str(folder.parent))}, "
            "which has test/, too"
        )
    classes = _classes(folder, passed_over)
    if len(classes) < 2:
        raise DataError(
            f"{folder}: {len(classes)} class folder(s) ({', '.join(classes) or 'none'}), expected "
            f"{LAYOUT}, of at least 2 classes; add them, or correct data.root"
        )
    every = _part(folder, "", {"train": classes, "": classes}, passed_over)
    return Tree(tuple(classes), with_test(every, list(classes), folder / SPLIT, share), passed_over)


def _classes(folder: Path, passed_over: PassedOver) -> dict[str, list[Path]]:
    """Class name -> its folders; empty if `folder` does not exist.

    Folders whose names differ only in Unicode normalisation are one class.
    """
    found = dict[str, list[Path]]()
    for entry in listed(folder) if folder.is_dir() else ():
        reason = _passed_over(entry, [os.path.realpath(folder)], "beside the class folders")
        if entry.name == SPLIT:
            continue
        if reason is None:
            found.setdefault(canonical(entry.name), []).append(Path(entry.path))
        else:
            passed_over.add(reason, f"{folder.name}/{entry.name}")
    return dict(sorted(found.items()))


def _check_classes(folder: Path, names: Mapping[str, Mapping[str, Any]]) -> None:
    classes = list(names["train"])
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
    if not names["test"]:
        raise DataError(f"{folder}/test: no class folders, expected {LAYOUT}; add test images")


def _part(
    root: Path, part: str, folders: Mapping[str, Mapping[str, Sequence[Path]]], skipped: PassedOver
) -> Part:
    classes, files, labels, sizes = list(folders["train"]), [], [], []
    for name, places in folders[part].items():
        found = [entry for place in places for entry in images_below(root, place, skipped)]
        if not found:
            raise DataError(
                f"{root / part / name}: no images, expected files that Pillow opens, as .jpg or "
                f".png, or .npy{_instead(root, places)}; add some, or delete the folder"
            )
        files += [Path(entry).relative_to(root).as_posix() for entry in found]
        sizes += [entry.stat().st_size for entry in found]
        labels += [classes.index(name)] * len(found)
    if part == "test":  # read only at the end of a run, so empty files are reported now
        for file, size in zip(files, sizes, strict=True):
            if size == 0:
                name = printable(str(root / file))
                log.warning("data: %s is empty; the final evaluation will not read it", name)
    return Part(root, tuple(files), torch.tensor(labels), tuple(sizes))


def _instead(root: Path, places: Sequence[Path]) -> str:
    """What folders without an image hold."""
    here = PassedOver()
    for place in places:
        images_below(root, place, here)
    return f", found {'; '.join(here.lines())}" if here.counts else ""


def images_below(root: Path, folder: Path, passed_over: PassedOver) -> list[Entry]:
    """The images of a folder and of its subfolders, in the order of torchvision's `ImageFolder`.

    root: the data's root; paths of skipped entries are relative to it.
    """

    def walk(place: str, around: Sequence[str]) -> Iterator[Entry]:
        for entry in listed(place):
            reason = _passed_over(entry, around)
            if reason is not None:
                passed_over.add(reason, os.path.relpath(entry.path, root))
            elif os.path.isdir(entry):
                yield from walk(entry.path, [*around, os.path.realpath(entry)])
            else:
                yield entry

    found = walk(str(folder), [os.path.realpath(folder)])
    return sorted(found, key=lambda entry: os.path.split(entry.path))


def listed(folder: str | Path) -> list[Entry]:
    """The entries of a folder, sorted by name. Raises DataError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{printable(str(folder))}: cannot be listed ({error.strerror}); expected a readable "
            "folder; correct its permissions or data.root"
        ) from error


def _passed_over(entry: Entry, around: Sequence[str], no_folder: str | None = None) -> str | None:
    """Why an entry is skipped; None for an image or a folder.

    Args:
        around: the real paths of the folders that it is in.
        no_folder: the reason for all that is no folder; None allows images.
    """
    if entry.name.startswith("."):
        return "hidden"
    if os.path.isdir(entry):
        real = os.path.realpath(entry)
        inside = any(Path(one).is_relative_to(real) for one in around)
        return "link to a folder around it" if inside else None
    suffix = os.path.splitext(entry.name)[1].lower()
    if no_folder is None and suffix not in suffixes():
        return f"of suffix {printable(suffix)}" if suffix else "without suffix"
    # isfile: False for a link to itself
    return no_folder or (None if os.path.isfile(entry) else "link that leads nowhere")
