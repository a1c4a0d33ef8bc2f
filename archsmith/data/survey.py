"""A survey of an image folder, for which every file of every part is opened once."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

from archsmith import interrupt
from archsmith.data.image_file import describe, infer_shape
from archsmith.data.image_folder import SKIPPED, examined
from archsmith.data.image_table import scanned
from archsmith.data.image_tree import PassedOver

SAMPLE = 2000  # headers per part from which sizes and modes are counted


@dataclass
class Survey:
    """Per part: images per class, sizes and modes of the files, and why files are unreadable.

    Skipped entries are counted over all parts together.
    """

    passed_over: PassedOver
    images: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    modes: dict[str, dict[str, int]] = field(default_factory=dict)
    unreadable: dict[str, list[str]] = field(default_factory=dict)
    refused: bool = False  # whether a run would refuse the data


def survey(
    root: str | None,
    image_size: Any,
    channels: int | None,
    test_share: float | None,
    on_error: str,
    workers: int,
) -> Survey:
    """Opens every file as a run does, including the test files, and keeps no pixels.

    Raises DataError for a folder that is not laid out as expected.
    """
    tree = scanned(root, test_share)
    shape = infer_shape(tree.training.paths(), image_size, channels)
    found = Survey(tree.passed_over)
    for name, part in tree.parts.items():
        counts = torch.bincount(part.labels, minlength=len(tree.classes)).tolist()
        found.images[name] = dict(zip(tree.classes, counts, strict=True))
        reasons = [reason for batch in examined(part, shape, workers) for reason in batch.reasons]
        found.unreadable[name] = [reason for reason in reasons if reason]
        found.modes[name], found.sizes[name] = _headers(part.paths())
    least = SKIPPED if on_error == "skip" else 0.0
    for names in (("train", "val"), ("test",)):
        bad = sum(len(found.unreadable.get(name, ())) for name in names)
        total = sum(sum(found.images.get(name, {}).values()) for name in names)
        found.refused |= bad > least * total
    return found


def _headers(paths: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How often each mode and each size occurs in a sample, the most frequent first."""
    modes, sizes = Counter[str](), Counter[str]()
    for path in paths[:: 1 + len(paths) // SAMPLE]:
        interrupt.check("data")
        header = describe(path)
        if header is not None:
            mode, (height, width) = header
            modes[mode] += 1
            sizes[f"{height}x{width}"] += 1
    return dict(modes.most_common()), dict(sizes.most_common())
