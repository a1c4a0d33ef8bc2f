"""What a trained network says of image files: the class of each, and how probable it is."""

import csv
import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from archsmith.data.image_file import attempt, suffixes
from archsmith.data.names import printable
from archsmith.errors import ConfigError
from search_spaces.settings import Count, checked

FileName = str | os.PathLike[str]


@checked
@dataclass(frozen=True)
class PredictSettings:
    """The settings of `task=predict`.

    Args:
        top: how many classes are named for an image, the most probable first.
        batch_size: images per pass; no result depends on it.
        csv: a file for the results: file, then label and probability of each named class.
    """

    top: Count
    batch_size: Count
    csv: str | None


class Predictions(NamedTuple):
    """Of B images: the most probable class of each, and the probabilities (B, classes), on the
    CPU."""

    labels: list[str]
    probabilities: Tensor


class Prediction(NamedTuple):
    """Of one file: its most probable classes with their probabilities, or why it was not read."""

    file: str
    top: Sequence[tuple[str, float]]
    unread: str | None = None


def image_files(wanted: str | Sequence[str]) -> list[str]:
    """The files that are meant by files, folders (with all folders in them) and patterns such as
    `photos/*.jpg`, each once, in this order; those of a folder or pattern are sorted by name.

    Raises ConfigError for a name that means none.
    """
    found: dict[str, None] = {}
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if os.path.isdir(name):
            files = sorted(
                os.path.join(folder, file)
                for folder, _, inside in os.walk(name)
                for file in inside
                if os.path.splitext(file)[1].lower() in suffixes()
            )
        else:
            files = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        if not files:
            raise ConfigError(
                f"images: found none for '{printable(name)}', expected a file, a folder with "
                "images or a pattern such as 'photos/*.jpg'"
            )
        found |= dict.fromkeys(files)
    return list(found)


def read_image(path: FileName, shape: Sequence[int]) -> Tensor | str:
    """The image of a file, (C, H, W) uint8, as in the training; or why it cannot be read."""
    found = attempt(os.fspath(path), shape)
    return found if isinstance(found, str) else torch.from_numpy(np.ascontiguousarray(found))


def write_csv(path: Path, found: Iterable[Prediction], top: int) -> None:
    """One line per file that was read: file, label, probability, label_2, probability_2, ..."""
    ranks = ["", *(f"_{rank}" for rank in range(2, top + 1))]
    names = [f"{what}{rank}" for rank in ranks for what in ("label", "probability")]
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(["file", *names])
        for one in found:
            if one.unread is None:
                ranked = [v for label, p in one.top for v in (label, f"{p:.6f}")]
                writer.writerow([printable(one.file), *ranked])
