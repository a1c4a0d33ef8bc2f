"""The roles of images, and which images each may read.

`train` is for weights, `val` for alphas. `select`, a held-out set without augmentation, is for
measuring: it updates neither and is the same for every strategy. `test` is for the final
evaluation: it is loaded on the first request, and every request is counted.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from archsmith import interrupt
from archsmith.data.augment import Augment, generator
from archsmith.data.loader import Images, Loader, Normalise, Shape, warn_of_copies
from archsmith.data.preprocessing import Preprocessing
from archsmith.data.split import Settings, allocate, pick, stratified
from archsmith.errors import DataError

log = logging.getLogger(__name__)

IMBALANCE = 10  # largest class over smallest; from here on it is logged
STATISTICS = 2048  # images for re-estimating batch-norm statistics


@dataclass(frozen=True)
class Roles:
    """The loaders of a search. `val` is None in a one-level search.

    `statistics` re-estimates batch normalisation: full batches of at most 2048 training images, not
    augmented, always the same ones in the same shuffled order. `sample` is one stratified batch of
    `select` images, always the same ones.
    """

    train: Loader
    val: Loader | None
    select: Loader
    statistics: Loader
    sample: Loader

    def held_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """A pass over the `val` images, or in a one-level search the training images: not
        augmented, in the same order each time. Raises Interrupted if the run is to stop."""
        role = self.train if self.val is None else self.val
        for batch in replace(role, augment=None):
            interrupt.check("selection")
            yield batch


class Data:
    """The training images, their split into roles, and the loader of the test images.

    Args:
        test: loads the test images in a shape (C, H, W); called by the first `test()`. Data of one
            fixed shape ignores the argument.
        val: (N,) bool, the images that the user holds out; None splits at random.
        normalise: None computes mean and deviation from the training images.
        test_identity: represents the test images in the fingerprint, as they are not read.

    Raises:
        DataError: fewer than 2 classes, or a class without a training image.
        ValueError: an augmentation that does not fit the image size.
    """

    reads_text = False  # whether the images are windows of a text

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        images: Images,
        test: Callable[[Shape], Images],
        settings: Settings,
        *,
        val: Tensor | None = None,
        normalise: Normalise | None = None,
        test_identity: bytes = b"",
    ):
        self.name, self.classes, self.settings = name, tuple(classes), settings
        self.images, self.input_shape = images, images.shape
        self.skipped = 0  # unreadable images that are left out
        self.test_reads = 0
        self._load_test, self._test_identity, self._val = test, test_identity, val
        self._test: Images | None = None
        self._compared = False  # whether copies among the roles were looked for
        self._check_classes()
        self.check_augment(settings.augment)
        self.normalise = normalise or Normalise.fit(images.counts)
        if val is not None:
            warn_of_copies("val", images, torch.where(~val)[0], images, torch.where(val)[0])

    def to(self, device: torch.device | str) -> "Data":
        """Moves the images to the device; existing loaders then yield batches on it, too."""
        for images in (self.images, self._test):
            if images is not None:
                images.to(torch.device(device))
        return self

    def loaders(self, batch_size: int, *, one_level: bool, seed: int) -> Roles:
        """The loaders of a search; `select` is the same for every strategy.

        Raises:
            DataError: fewer than 2 images in a role.
            ValueError: a batch size below 2.
        """
        index = self.split(one_level=one_level)
        train, select = index["train"], index["select"]
        if self._val is None and not self._compared:
            self._compared = True
            for role, other in list(index.items())[1:]:
                warn_of_copies(role, self.images, train, self.images, other)

        def augmented(role: str) -> Loader:
            return self._training(role, index[role], batch_size, seed, self.settings.augment)

        sample = self._sample(select, min(batch_size, len(select)))
        mixed = train[torch.randperm(len(train), generator=generator(seed, "statistics"))]
        whole = max(1, min(len(mixed), STATISTICS) // batch_size) * batch_size
        return Roles(
            train=augmented("train"),
            val=None if one_level else augmented("val"),
            select=self.plain("select", select, batch_size),
            statistics=self.plain("statistics", mixed[:whole], batch_size),
            sample=self.plain("sample", sample, batch_size),
        )

    def training(
        self, batch_size: int, seed: int, augment: Mapping[str, Any] | None = None
    ) -> Loader:
        """All training images, augmented: for retraining. `augment` overrides single settings.

        Raises ValueError for a batch size below 2, or an augmentation that is unknown or too large.
        """
        settings = {**self.settings.augment, **(augment or {})}
        return self._training("training", self.images.all, batch_size, seed, settings)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of a network trained on these images, to be stored with its weights."""
        mean, std = self.normalise.mean.tolist(), self.normalise.std.tolist()
        return Preprocessing(self.classes, self.input_shape, tuple(mean), tuple(std))

    def test(self, batch_size: int, preprocessing: Preprocessing | None = None) -> Loader:
        """The test images in order, not augmented; loaded on the first call, and every call is
        counted.

        preprocessing: that of the tested network, whose image size and statistics are used; None
        uses those of this data.

        Raises DataError if the images cannot be loaded at that size.
        """
        chosen = preprocessing or self.preprocessing
        self.test_reads += 1
        if self._test is None or self._test.shape != chosen.input_shape:
            test = self._load_test(chosen.input_shape)
            if test.shape != chosen.input_shape:
                found, wanted = ("x".join(map(str, s)) for s in (test.shape, chosen.input_shape))
                raise DataError(
                    f"{self.name}: test images of {found}, expected {wanted}, on which the network "
                    "was trained; give images of that shape"
                )
            warn_of_copies("test", self.images, self.images.all, test, test.all)
            test.to(self.images.device)
            self._test = test
        return Loader(self._test, self._test.all, batch_size, "test", chosen.normalise)

    def plain(self, role: str, index: Tensor, batch_size: int) -> Loader:
        """A loader of these training images, not augmented, in this order in every pass."""
        return Loader(self.images, index, batch_size, role, self.normalise)

    def split(self, *, one_level: bool) -> dict[str, Tensor]:
        """Role -> positions of its images, ascending: `train`, `val` unless one-level, `select`.

        `select` is drawn first, so that all strategies of a comparison are measured on the same
        images, which update neither weights nor alphas: a share of each class, or half of each
        class of the images that the user holds out. The other half is `val`; a one-level search
        does not use it.

        Raises DataError if a role has fewer than 2 images.
        """
        if self._val is None:
            train, select = self._shared("select", self.images.all, 1 - self.settings.select)
            if not one_level:
                train, val = self._shared("split", train, self.settings.split)
        else:
            train = torch.where(~self._val)[0]
            val, select = self._shared("select", torch.where(self._val)[0], 0.5)
        found = {"train": train, "select": select} | ({} if one_level else {"val": val})
        for role, index in found.items():
            if len(index) < 2:
                raise DataError(
                    f"{self.name}: {len(index)} of {len(self.images)} images for role "
                    f"'{role}', expected 2 or more; {self._more_images(role)}"
                )
        return found

    def fingerprint(self) -> str:
        """sha256, in hex, of shape, classes, labels, training pixels and the test files' identity.

        For images that stay on disk, names and sizes represent the pixels.
        """
        digest = hashlib.sha256(json.dumps([self.input_shape, self.classes]).encode())
        parts = [
            one.numpy().tobytes() for one in (self.images.labels, self._val) if one is not None
        ]
        for part in (*parts, self.images.content(), self._test_identity):
            digest.update(part)
        return digest.hexdigest()

    def check_augment(self, augment: Mapping[str, Any]) -> None:
        """Raises ValueError for an augmentation that does not fit the images."""
        Augment.of(augment).check(self.input_shape)

    def _sample(self, select: Tensor, count: int) -> Tensor:
        """Images of every class, always the same ones."""
        labels, source = self.images.labels[select], generator(self.settings.seed, "sample")
        return select[pick(labels, allocate(self._counts(labels), count), source)]

    def _check_classes(self) -> None:
        """Raises DataError for too few classes or an empty one; logs an imbalance."""
        counts = self._counts(self.images.labels)
        if len(counts) < 2:
            raise DataError(f"{self.name}: {len(counts)} class, expected at least 2; add a class")
        most, least = int(counts.argmax()), int(counts.argmin())
        if counts[least] == 0:
            raise DataError(
                f"{self.name}: class '{self.classes[least]}' has no training image, expected 1 or "
                "more; add images, or remove the class"
            )
        if counts[most] >= IMBALANCE * counts[least]:
            log.warning(
                "data: imbalanced, class '%s' has %d training images and '%s' %d; every role "
                "gets its share, and test_balanced_accuracy is the number to read",
                self.classes[most], counts[most], self.classes[least], counts[least],
            )  # fmt: skip

    def _shared(self, key: str, index: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """A share of each class of these images, and the rest; depends only on `data.seed`."""
        source = generator(self.settings.seed, key)
        first, second = stratified(self.images.labels[index], share, source)
        return index[first], index[second]

    def _more_images(self, role: str) -> str:
        """The remedy for a role with too few images; each class keeps one for training."""
        if self._val is not None:
            return f"add images to {'train' if role == 'train' else 'val'}/"
        if int((self._counts(self.images.labels) - 1).sum()) < 2:
            return "add images: every class keeps one for training, whatever the share"
        change = "raise data.select" if role == "select" else "lower data.split"
        return f"add images, or {change}"

    def _training(
        self, role: str, index: Tensor, batch_size: int, seed: int, augment: Mapping[str, Any]
    ) -> Loader:
        chosen = Augment.of(augment)
        chosen.check(self.input_shape)
        return Loader(
            self.images, index, batch_size, role, self.normalise,
            training=True, seed=seed, augment=chosen,
        )  # fmt: skip

    def _counts(self, labels: Tensor) -> Tensor:
        return torch.bincount(labels, minlength=len(self.classes))
