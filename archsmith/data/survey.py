"""A survey of an image folder, for which every file of every part is opened once."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

from archsmith import interrupt
from archsmith.data.image_file import describe, infer_shape
from archsmith.data.image_folder import SKIPPED, unreadable
from archsmith.data.image_tree import Part, join, scan
from archsmith.data.listing import PassedOver
from archsmith.data.sets import folder

SAMPLE = 2000  # headers per part from which sizes and modes are counted


@dataclass
class Survey:
    """Per part: images per class, sizes and modes of the files, and why files are unreadable.

    Skipped entries are counted over all parts together.
    """

    images: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    modes: dict[str, dict[str, int]] = field(default_factory=dict)
    unreadable: dict[str, list[str]] = field(default_factory=dict)
    passed_over: PassedOver = field(default_factory=PassedOver)
    refused: bool = False  # whether a run would refuse the data


def survey(
    root: str | None, image_size: Any, channels: int | None, on_error: str, workers: int
) -> Survey:
    """Opens every file as a run does, including the test files, and keeps no pixels.

    Raises DataError for a folder that is not laid out as expected.
    """
    classes, parts, passed_over = scan(root)
    trained = join([parts[name] for name in ("train", "val") if name in parts])
    shape = infer_shape(trained.paths(), image_size, channels)
    found = Survey(passed_over=passed_over)
    for name, part in parts.items():
        counts = torch.bincount(part.labels, minlength=len(classes)).tolist()
        found.images[name] = dict(zip(classes, counts, strict=True))
        found.unreadable[name] = unreadable(part, shape, workers)
        _count_headers(found, name, part)
    bad = {name: len(reasons) for name, reasons in found.unreadable.items()}
    trained_bad = bad["train"] + bad.get("val", 0)
    groups = ((trained_bad, len(trained.files)), (bad["test"], len(parts["test"].files)))
    least = SKIPPED if on_error == "skip" else 0.0
    found.refused = any(count > least * total for count, total in groups)
    return found


def _count_headers(found: Survey, name: str, part: Part) -> None:
    paths = part.paths()
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for path in paths[:: 1 + len(paths) // SAMPLE]:
        interrupt.check("data")
        header = describe(path)
        if header is not None:
            mode, (height, width) = header
            sizes[f"{height}x{width}"] += 1
            modes[mode] += 1
    found.sizes[name], found.modes[name] = dict(sizes.most_common()), dict(modes.most_common())


SURVEYS = {folder: survey}  # data set -> what inspects its files
