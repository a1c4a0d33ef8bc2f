"""The parts of a set of image files, `train`, `test` and `val`, and a test part if there is none.

Such a part is drawn once and kept in a list of paths, so that no image that trained an earlier
network is ever a test image: images that are added later are training images.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from archsmith.errors import DataError
from archsmith.files import write_atomically

log = logging.getLogger(__name__)
PARTS = ("train", "test", "val")
SHARE = 0.2  # of each class for the test, unless it is set


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


def with_test(
    every: Part, classes: Sequence[str], kept: Path, share: float | None
) -> dict[str, Part]:
    """`train` and `test`, a share of each class: those listed in the file `kept`, or drawn and
    written there.

    share: None is 0.2. Raises DataError for a class of which nothing is left to train or to test.
    """
    known = _read(kept)
    if known is None:
        known = _drawn(every, SHARE if share is None else share)
        _write(kept, known)
    is_test = torch.tensor([file in known for file in every.files])
    for label, name in enumerate(classes):
        of_class = is_test[every.labels == label]
        if of_class.all() or not of_class.any():
            raise DataError(
                f"{every.root}: class '{name}' has {len(of_class)} images, "
                f"{int(of_class.sum())} of them for the test, expected some for both; add images, "
                f"and delete {kept.name} to draw again"
            )
    test, train = (every.take(chosen.nonzero().flatten()) for chosen in (is_test, ~is_test))
    log.info(
        "data: %d of %d images below %s are the test images, named in %s",
        len(test.files), len(every.files), every.root, kept.name,
    )  # fmt: skip
    return {"train": train, "test": test}


def _drawn(every: Part, share: float) -> set[str]:
    """A share of each class, at least one image and not all, by digests of the paths."""
    chosen: set[str] = set()
    for label in every.labels.unique().tolist():
        files = [every.files[i] for i in (every.labels == label).nonzero().flatten().tolist()]
        files = [file for file in files if "\n" not in file]  # a line of the list each
        files.sort(key=lambda file: hashlib.blake2b(os.fsencode(file)).digest())
        chosen |= set(files[: min(max(1, round(share * len(files))), len(files) - 1)])
    return chosen


def _read(kept: Path) -> set[str] | None:
    """The test images that were drawn before; None if there is no list."""
    try:
        text = kept.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(
            f"{kept}: cannot be read ({error.strerror}), expected the list of the test images; "
            "mend it, or delete it to draw them again"
        ) from error
    return set(text.split("\n"))


def _write(kept: Path, files: set[str]) -> None:
    text = "".join(f"{file}\n" for file in sorted(files))
    try:
        write_atomically(kept, os.fsencode(text))
    except OSError as error:
        log.warning(
            "data: %s cannot be written (%s): the test images are drawn again in each run, the "
            "same ones while no image is added",
            kept, error.strerror,
        )  # fmt: skip
