"""The data sets: one function each, from the settings of `conf/data/*.yaml` to a `Data`."""

import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from archsmith import interrupt
from archsmith.data.augment import generator
from archsmith.data.image_file import Pixels, first_line, height_width, infer_shape
from archsmith.data.image_folder import OnError, Workers, load
from archsmith.data.image_table import scanned
from archsmith.data.loader import Images, Normalise, Shape
from archsmith.data.roles import Data
from archsmith.data.split import Settings, image_set, limited, stratified
from archsmith.data.survey import survey
from archsmith.errors import DataError
from search_spaces.settings import Count, NotNegative, OpenShare, checked

log = logging.getLogger(__name__)


class Archive(NamedTuple):
    """How torchvision stores a data set."""

    files: Sequence[str]  # the expected entries below `data.root`
    parts: Sequence[dict[str, Any]] = ({"train": True}, {"train": False})
    labels: str = "targets"
    normalise: Normalise | None = None  # None computes it from the training images


# CIFAR_MEAN and CIFAR_STD of quark0/darts, utils.py
DARTS_CIFAR10 = Normalise(
    torch.tensor([0.49139968, 0.48215827, 0.44653124]),
    torch.tensor([0.24703233, 0.24348505, 0.26158768]),
)
TORCHVISION = {
    "CIFAR10": Archive(["cifar-10-batches-py"], normalise=DARTS_CIFAR10),
    "CIFAR100": Archive(["cifar-100-python"]),
    "FashionMNIST": Archive(["FashionMNIST/raw"]),
    "SVHN": Archive(
        ["train_32x32.mat", "test_32x32.mat"], ({"split": "train"}, {"split": "test"}), "labels"
    ),
}


def _in_memory(
    name: str,
    classes: Sequence[str],
    images: Images,
    test: Callable[[Shape], Images],
    settings: Settings,
    normalise: Normalise | None = None,
) -> Data:
    index = limited(images.labels, settings)
    return Data(name, classes, images.take(index), test, settings, normalise=normalise)


@checked
@image_set
def digits(root: str | None, test_share: OpenShare, settings: Settings) -> Data:
    """The 1,797 handwritten digits, 1 x 8 x 8, that come with scikit-learn; `root` is not used.

    A share of `test_share`, the same for every seed, are the test images. Values are scaled from
    0-16 to 0-255.
    """
    images, target = _digits()
    pixels = torch.from_numpy(np.rint(images * 255 / 16).astype(np.uint8))[:, None]
    every = Images(pixels, torch.from_numpy(target.astype(np.int64)))
    train, test = stratified(every.labels, 1 - test_share, generator("digits"))
    names = [str(digit) for digit in range(10)]
    return _in_memory("digits", names, every.take(train), lambda _: every.take(test), settings)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) and labels, read from scikit-learn's file: its import takes 1 s."""
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]


@checked
@image_set
def synthetic(
    root: str | None,
    size: Count,
    classes: Count,
    channels: Count,
    image_size: Pixels,
    noise: NotNegative,
    settings: Settings,
) -> Data:
    """A coarse pattern per class, plus Gaussian noise of `noise` times its amplitude.

    `size` training images and as many test images, cycling through the classes, all drawn from
    `seed`; `root` is not used. Raises ValueError for fewer images than classes.
    """
    H, W = height_width(image_size)
    if size < classes:
        raise ValueError(f"data.size: {size} images for {classes} classes, expected one of each")
    key = (settings.seed, classes, channels, H, W)
    coarse = torch.randn(classes, channels, 4, 4, generator=generator("pattern", *key)).sign()
    labels = torch.arange(size) % classes
    pattern = F.interpolate(coarse, size=(H, W), mode="nearest")[labels]

    def draw(part: str) -> Images:
        x = torch.randn(size, channels, H, W, generator=generator(part, *key)) * noise
        return Images((127.5 + 48 * (pattern + x)).round().clamp(0, 255).to(torch.uint8), labels)

    names = [str(label) for label in range(classes)]
    return _in_memory("synthetic", names, draw("train"), lambda _: draw("test"), settings)


@checked
@image_set
def folder(
    root: str | None,
    image_size: Pixels | None,
    channels: Count | None,
    test_share: OpenShare | None,
    on_error: OnError,
    workers: Workers,
    memory_mb: NotNegative,
    settings: Settings,
) -> Data:
    """Your own images, `root/train/<class>/*` and `root/test/<class>/*`, or `root/<class>/*` of
    which a share of `test_share` are the test images (`image_tree`), or a CSV file that names them
    (`image_table`).

    `root/val/<class>/*`, where it exists, is held out instead of a random share. Sets of at most
    `memory_mb` (10^6 bytes, decoded) are kept in memory; larger ones are decoded by `workers`
    processes.
    """
    tree = scanned(root, test_share)
    for line in tree.passed_over.lines():
        log.warning("data: passed over, not read: %s", line)
    every, test = tree.training, tree.parts["test"]
    is_val = torch.arange(len(every.files)) >= len(tree.parts["train"].files)
    chosen = limited(every.labels * 2 + is_val, settings)
    shape = infer_shape(every.paths(), image_size, channels)
    read = partial(load, memory_mb=memory_mb, workers=workers, on_error=on_error)
    images, kept = read(every.take(chosen), shape)
    val = is_val[chosen][kept] if "val" in tree.parts else None
    data = Data(
        "folder", tree.classes, images, lambda shape: read(test, shape)[0], settings,
        val=val, test_identity=test.identity(),
    )  # fmt: skip
    data.skipped = len(chosen) - len(kept)
    return data


SURVEYS = {f"{__name__}.folder": survey}  # data whose files `task=check` opens, by what


@checked
@image_set
def torchvision_set(
    dataset: Literal["CIFAR10", "CIFAR100", "FashionMNIST", "SVHN"],
    root: str | None,
    download: bool,
    settings: Settings,
) -> Data:
    """CIFAR10, CIFAR100, FashionMNIST or SVHN (without the extra images), from torchvision.

    Raises:
        DataError: files are missing or damaged, or the download failed.
        ValueError: an unknown `dataset`.
    """
    if root is None:
        raise DataError(f"data.root: null, expected a folder for {dataset}; set data.root to it")
    place = Path(root).expanduser()
    read = partial(_read, dataset, place)
    try:
        classes, images = read(0)
    except DataError:
        if not download:
            raise
        _download(dataset, place)
        classes, images = read(0)
    normalise = TORCHVISION[dataset].normalise
    return _in_memory(dataset.lower(), classes, images, lambda _: read(1)[1], settings, normalise)


def _read(dataset: str, place: Path, part: int) -> tuple[list[str], Images]:
    """Class names and images of the training (0) or test (1) part; the other is not loaded."""
    from torchvision import datasets

    source = TORCHVISION[dataset]
    files = [place / name for name in source.files]
    try:
        for file in files:
            file.stat()
        found = getattr(datasets, dataset)(place, **source.parts[part])
    except (RuntimeError, OSError, EOFError, ValueError, AssertionError) as error:
        raise DataError(
            f"{place}: {dataset} is missing or damaged ({first_line(error)}), expected "
            f"{' and '.join(map(str, files))}; set data.download=true, or put them there"
        ) from error
    pixels = torch.as_tensor(found.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.size(-1) == 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels = torch.as_tensor(getattr(found, source.labels)).long()
    names = getattr(found, "classes", [str(digit) for digit in range(10)])
    return names, Images(pixels.contiguous(), labels)


def _download(dataset: str, place: Path) -> None:
    """Downloads in up to three attempts, each in its own folder, so that no partial file remains.

    Raises DataError if the last one fails.
    """
    from torchvision import datasets

    source = TORCHVISION[dataset]
    for attempt in range(1, 4):
        interrupt.check("data")
        try:
            place.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=place) as fresh:
                for part in source.parts:  # all of them, so that none is missing later
                    getattr(datasets, dataset)(fresh, **part, download=True)
                shutil.copytree(fresh, place, dirs_exist_ok=True)
            return
        except (RuntimeError, OSError, EOFError, HTTPException) as error:
            log.warning("data: download of %s, attempt %d of 3: %s", dataset, attempt, error)
            failure = error
    raise DataError(
        f"{place}: download of {dataset} failed ({first_line(failure)}), expected a connection; "
        f"try again, or put {' and '.join(source.files)} there yourself"
    ) from failure
