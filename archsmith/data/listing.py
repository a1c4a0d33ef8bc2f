"""Lists the images below a folder, and counts skipped entries by reason."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from archsmith.data.names import printable
from archsmith.errors import DataError

EXAMPLES = 3
# EPS would run Ghostscript; for the others Pillow reads only the header.
NOT_DECODED = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
ARRAY_SUFFIX = ".npy"
HIDDEN = "hidden"
LOOP = "link to a folder around it"
NOWHERE = "link that leads nowhere"


@cache
def formats() -> tuple[str, ...]:
    """The formats that Pillow can open here, including those of installed plugins."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - NOT_DECODED))


@cache
def suffixes() -> frozenset[str]:
    """Suffixes of the files that are read."""
    known = Image.registered_extensions().items()
    return frozenset({ARRAY_SUFFIX, *(suffix for suffix, kind in known if kind in formats())})


@dataclass
class PassedOver:
    """Counts a folder's skipped entries by reason, with the first few names of each."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, paths: Iterable[str]) -> None:
        for path in paths:
            self.counts[reason] = self.counts.get(reason, 0) + 1
            if self.counts[reason] <= EXAMPLES:
                self.examples.setdefault(reason, []).append(printable(path))

    def update(self, other: "PassedOver") -> None:
        for reason, count in other.counts.items():
            known = self.examples.setdefault(reason, [])
            known += other.examples[reason][: EXAMPLES - len(known)]
            self.counts[reason] = self.counts.get(reason, 0) + count

    def lines(self) -> list[str]:
        """One line per reason, the most frequent first."""
        by_count = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return [f"{n} {reason} (as {self.examples[reason][0]})" for reason, n in by_count]


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name. Raises DataError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{printable(str(folder))}: cannot be listed ({error.strerror}); expected a readable "
            "folder; correct its permissions or data.root"
        ) from error


def images_below(root: Path, folder: Path, passed_over: PassedOver) -> list[os.DirEntry[str]]:
    """The images of a folder and of its subfolders, in the order of torchvision's `ImageFolder`.

    root: the data's root; paths of skipped entries are relative to it.
    """
    found: dict[str, list[os.DirEntry[str]]] = {}
    left: list[tuple[Path, tuple[str, ...]]] = [(folder, (os.path.realpath(folder),))]
    while left:
        place, around = left.pop()
        found[str(place)] = images = []
        for entry in listed(place):
            reason = _reason(entry, around)
            if reason is not None:
                passed_over.add(reason, [os.path.relpath(entry.path, root)])
            elif os.path.isdir(entry):
                left.append((Path(entry.path), (*around, os.path.realpath(entry))))
            else:
                images.append(entry)
    return [entry for place in sorted(found) for entry in found[place]]


def _reason(entry: os.DirEntry[str], around: Sequence[str]) -> str | None:
    """Why an entry is skipped; None for an image or a folder."""
    if entry.name.startswith("."):
        return HIDDEN
    if os.path.isdir(entry):
        real = os.path.realpath(entry)
        return LOOP if any(Path(one).is_relative_to(real) for one in around) else None
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in suffixes():
        return f"of suffix {printable(suffix)}" if suffix else "without suffix"
    return None if os.path.isfile(entry) else NOWHERE  # isfile: False for a link to itself
