"""The data sets: one function each, from the settings of `conf/data/*.yaml` to a `Data`."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from archsmith import interrupt
from archsmith.data.augment import generator
from archsmith.data.image_file import first_line, height_width, infer_shape
from archsmith.data.image_folder import load
from archsmith.data.image_tree import join, scan
from archsmith.data.loader import Images, Loader, Normalise
from archsmith.data.roles import Data, Roles, Shape
from archsmith.data.split import Settings, limited, stratified
from archsmith.errors import DataError
from search_spaces.settings import Count, NotNegative, OpenShare, Range, checked

__all__ = ["Data", "Loader", "Roles"]
log = logging.getLogger(__name__)

# CIFAR_MEAN and CIFAR_STD of quark0/darts, utils.py
DARTS_CIFAR10 = Normalise(
    torch.tensor([0.49139968, 0.48215827, 0.44653124]),
    torch.tensor([0.24703233, 0.24348505, 0.26158768]),
)
TORCHVISION = {  # data set -> expected entry below `data.root`
    "CIFAR10": ["cifar-10-batches-py"],
    "CIFAR100": ["cifar-100-python"],
    "FashionMNIST": ["FashionMNIST/raw"],
    "SVHN": ["train_32x32.mat", "test_32x32.mat"],
}


def _in_memory(
    name: str,
    classes: Sequence[str],
    pixels: Tensor,
    labels: Tensor,
    test: Callable[[Shape], Images],
    settings: Settings,
    normalise: Normalise | None = None,
) -> Data:
    index = limited(labels, settings)
    images = Images(pixels[index], labels[index])
    return Data(name, classes, images, test, settings, normalise=normalise)


@checked
def digits(
    root: str | None,
    test_share: OpenShare,
    limit: Count | None,
    split: OpenShare,
    select: OpenShare,
    augment: Mapping[str, Any],
    seed: int,
) -> Data:
    """The 1,797 handwritten digits, 1 x 8 x 8, that come with scikit-learn; `root` is not used.

    A share of `test_share`, the same for every seed, are the test images. Values are scaled from
    0-16 to 0-255.
    """
    images, target = _digits()
    pixels = torch.from_numpy(np.rint(images * 255 / 16).astype(np.uint8))[:, None]
    labels = torch.from_numpy(target.astype(np.int64))
    train, test = stratified(labels, 1 - test_share, generator("digits"))
    return _in_memory(
        "digits",
        [str(name) for name in range(10)],
        pixels[train],
        labels[train],
        lambda _: Images(pixels[test], labels[test]),
        Settings(limit, split, select, augment, seed),
    )


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) and labels, read from scikit-learn's file: its import takes 1 s."""
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    table = np.loadtxt(Path(spec.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]


@checked
def synthetic(
    root: str | None,
    size: Count,
    classes: Count,
    channels: Count,
    image_size: int | Sequence[int],
    noise: NotNegative,
    limit: Count | None,
    split: OpenShare,
    select: OpenShare,
    augment: Mapping[str, Any],
    seed: int,
) -> Data:
    """A coarse pattern per class, plus Gaussian noise of `noise` times its amplitude.

    `size` training images and as many test images, cycling through the classes, all drawn from
    `seed`; `root` is not used. Raises ValueError for fewer images than classes.
    """
    H, W = height_width(image_size)
    key = (seed, classes, channels, H, W)
    if size < classes:
        raise ValueError(f"data.size: {size} images for {classes} classes, expected one of each")
    coarse = torch.randn(classes, channels, 4, 4, generator=generator("pattern", *key)).sign()
    pattern = F.interpolate(coarse, size=(H, W), mode="nearest")
    labels = torch.arange(size) % classes

    def draw(part: str) -> Tensor:
        x = torch.randn(size, channels, H, W, generator=generator(part, *key)) * noise
        return (127.5 + 48 * (pattern[labels] + x)).round().clamp(0, 255).to(torch.uint8)

    return _in_memory(
        "synthetic",
        [str(label) for label in range(classes)],
        draw("train"),
        labels,
        lambda _: Images(draw("test"), labels),
        Settings(limit, split, select, augment, seed),
    )


@checked
def folder(
    root: str | None,
    image_size: int | Sequence[int] | None,
    channels: Count | None,
    on_error: Literal["abort", "skip"],
    workers: Annotated[int, Range(ge=0)],
    memory_mb: NotNegative,
    limit: Count | None,
    split: OpenShare,
    select: OpenShare,
    augment: Mapping[str, Any],
    seed: int,
) -> Data:
    """Your own images, `root/train/<class>/*` and `root/test/<class>/*`; see `image_folder`.

    `root/val/<class>/*`, where it exists, is held out instead of a random share. Sets of at most
    `memory_mb` (10^6 bytes, decoded) are kept in memory; larger ones are decoded by `workers`
    processes.
    """
    settings = Settings(limit, split, select, augment, seed)
    classes, parts, passed_over = scan(root)
    for line in passed_over.lines():
        log.warning("data: passed over, not read: %s", line)
    every = join([parts[name] for name in ("train", "val") if name in parts])
    is_val = torch.arange(len(every.labels)) >= len(parts["train"].labels)
    chosen = limited(every.labels * 2 + is_val, settings)
    shape = infer_shape(every.paths(), image_size, channels)
    read = partial(load, memory_mb=memory_mb, workers=workers, on_error=on_error)
    images, kept = read(every.take(chosen), shape)
    return Data(
        "folder",
        classes,
        images,
        lambda shape: read(parts["test"], shape)[0],
        settings,
        val=is_val[chosen][kept] if "val" in parts else None,
        test_identity=parts["test"].identity(),
        skipped=len(chosen) - len(kept),
    )


@checked
def torchvision_set(
    dataset: Literal["CIFAR10", "CIFAR100", "FashionMNIST", "SVHN"],
    root: str | None,
    download: bool,
    limit: Count | None,
    split: OpenShare,
    select: OpenShare,
    augment: Mapping[str, Any],
    seed: int,
) -> Data:
    """CIFAR10, CIFAR100, FashionMNIST or SVHN (without the extra images), from torchvision.

    Raises:
        DataError: files are missing or damaged, or the download failed.
        ValueError: an unknown `dataset`.
    """
    if root is None:
        raise DataError(f"data.root: null, expected a folder for {dataset}; set data.root to it")
    settings, place = Settings(limit, split, select, augment, seed), Path(root).expanduser()
    try:
        classes, pixels, labels = _read(dataset, place, "train")
    except DataError:
        if not download:
            raise
        _download(dataset, place)
        classes, pixels, labels = _read(dataset, place, "train")
    return _in_memory(
        dataset.lower(),
        classes,
        pixels,
        labels,
        lambda _: Images(*_read(dataset, place, "test")[1:]),
        settings,
        normalise=DARTS_CIFAR10 if dataset == "CIFAR10" else None,
    )


def _read(dataset: str, place: Path, part: str) -> tuple[list[str], Tensor, Tensor]:
    """Class names, pixels (N, C, H, W) uint8 and labels of one part; the other is not loaded."""
    from torchvision import datasets

    make = getattr(datasets, dataset)
    files = [place / name for name in TORCHVISION[dataset]]
    try:
        for file in files:
            file.stat()
        by_name = hasattr(make, "split_list")  # true for SVHN
        found = make(place, **({"split": part} if by_name else {"train": part == "train"}))
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
    labels = torch.as_tensor(found.labels if by_name else found.targets).long()
    names = getattr(found, "classes", [str(digit) for digit in range(10)])
    return names, pixels.contiguous(), labels


def _download(dataset: str, place: Path) -> None:
    """Downloads in up to three attempts, each in its own folder, so that no partial file remains.

    Raises DataError if the last one fails.
    """
    for attempt in range(1, 4):
        interrupt.check("data")
        try:
            place.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=place) as fresh:
                _fetch(dataset, fresh)
                shutil.copytree(fresh, place, dirs_exist_ok=True)
            return
        except (RuntimeError, OSError, EOFError, HTTPException) as error:
            log.warning("data: download of %s, attempt %d of 3: %s", dataset, attempt, error)
            failure = error
    raise DataError(
        f"{place}: download of {dataset} failed ({first_line(failure)}), expected a connection; "
        f"try again, or put {' and '.join(TORCHVISION[dataset])} there yourself"
    ) from failure


def _fetch(dataset: str, place: str) -> None:
    """Downloads all parts, so that none is missing later."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    make = getattr(datasets, dataset)
    if not hasattr(make, "split_list"):
        make(place, train=True, download=True)
        return
    for part in ("train", "test"):
        url, name, md5 = make.split_list[part]
        download_url(url, place, name, md5)
