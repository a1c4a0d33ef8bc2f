"""Images in memory, and batches of them: drawn, augmented and normalised.

All randomness is a function of (seed, role, epoch, batch) and never of the global generator, so the
position is a loader's entire state, and an interrupted epoch resumes bit for bit.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from archsmith.data.augment import Augment, generator
from archsmith.data.names import printable
from archsmith.errors import CheckpointError

log = logging.getLogger(__name__)
Shape = tuple[int, int, int]  # C, H, W


class Images:
    """Labelled images in memory: pixels (N, C, H, W) uint8; labels (N,) int64, of windows of a
    text (N, T), on the CPU.

    `names` are the file names, if the images come from files.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, names: Sequence[str] = ()):
        C, H, W = pixels.shape[1:]
        self.shape, self.names = (C, H, W), names
        self.labels, self.device = labels, pixels.device
        self._pixels, self._labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def all(self) -> Tensor:
        """The positions of all images, in order."""
        return torch.arange(len(self))

    def take(self, index: Tensor) -> "Images":
        return Images(self._pixels[index], self.labels[index])

    def to(self, device: torch.device) -> None:
        self.device = device
        self._pixels, self._labels = self._pixels.to(device), self.labels.to(device)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each index (B,): images (B, C, H, W) uint8 and labels (B,), both on the device."""
        for index in indices:
            index = index.to(self.device, non_blocking=True)
            yield self._pixels[index], self._labels[index]

    @cached_property
    def counts(self) -> Tensor:
        """(C, 256): how often each value occurs in each channel."""
        return pixel_counts(self._pixels.cpu())

    @cached_property
    def digests(self) -> list[bytes]:
        """One of each image's pixels; images with equal digests are copies."""
        return [pixel_digest(image) for image in self._pixels.cpu().numpy()]

    def content(self) -> bytes | memoryview:
        """All pixels, as bytes for the fingerprint."""
        return self._pixels.cpu().contiguous().numpy().data

    def name(self, position: int) -> str:
        """The file name of an image, or its position."""
        return printable(self.names[position]) if self.names else f"image {position}"


def warn_of_copies(role: str, images: Images, index: Tensor, others: Images, other: Tensor) -> None:
    """Logs how many images of a role are also training images, with examples; none is removed."""
    known = {images.digests[i]: i for i in index.tolist()}
    found = [(i, known.get(others.digests[i])) for i in other.tolist()]
    copies = [(copy, original) for copy, original in found if original is not None]
    if copies:
        log.warning(
            "data: %d images of '%s' are exact copies of training images, so its accuracy says too "
            "much; as %s",
            len(copies), role,
            ", ".join(f"{others.name(a)} of {images.name(b)}" for a, b in copies[:3]),
        )  # fmt: skip


def pixel_digest(pixels: np.ndarray) -> bytes:
    """A digest of the pixels."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


def pixel_counts(pixels: Tensor) -> Tensor:
    """(N, C, H, W) uint8 -> (C, 256) counts of each value per channel."""
    counts = torch.zeros(pixels.size(1), 256, dtype=torch.int64)
    for chunk in pixels.split(1024):
        for c, channel in enumerate(chunk.transpose(0, 1).flatten(1)):
            counts[c] += torch.bincount(channel, minlength=256)
    return counts


@dataclass(frozen=True)
class Normalise:
    """Normalises pixels to zero mean and unit deviation; mean and std (C,), on the scale 0 to 1."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, histogram: Tensor) -> "Normalise":
        """From the counts (C, 256) of each value; a constant channel is only centred."""
        counts, values = histogram.double(), torch.arange(256.0, dtype=torch.float64)
        total = counts.sum(1)
        mean = (counts * values).sum(1) / total  # exact, so a constant channel has deviation 0
        std = ((counts * (values - mean[:, None]) ** 2).sum(1) / total).sqrt()
        return cls((mean / 255).float(), torch.where(std > 0, std / 255, 1.0).float())

    def to(self, device: torch.device) -> "Normalise":
        return Normalise(self.mean.to(device), self.std.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> float32."""
        return (images / 255 - self.mean[:, None, None]) / self.std[:, None, None]


@dataclass(eq=False)
class Loader:
    """Mini-batches `(x, y)`: x (B, C, H, W) float32, normalised; y (B,) int64.

    With `training`, each epoch has its own order and the loader keeps its position: iteration
    starts at `batch` of `epoch` and ends with the epoch. If it was stopped after the last batch,
    the next iteration is empty, so repeat a loader by `while True: yield from loader`, never by
    `zip`. Without `training`, every pass reads the whole index in order.

    Args:
        index: (N,) int64 positions in `images`.
        training: shuffles and augments, and drops a last batch of one image, as batch normalisation
            needs two.

    Raises:
        ValueError: a batch size below 1, or below 2 in training.
    """

    images: Images
    index: Tensor
    batch_size: int
    role: str
    normalise: Normalise
    training: bool = False
    seed: int = 0
    augment: Augment | None = None

    def __post_init__(self) -> None:
        least = 2 if self.training else 1
        if self.batch_size < least:
            raise ValueError(
                f"batch_size: {self.batch_size} for '{self.role}', expected at least {least}"
            )
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        full, rest = divmod(len(self.index), self.batch_size)
        return full + (rest > (1 if self.training else 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.training:
            self.batch = 0
        epoch, normalise = self.epoch, self.normalise.to(self.images.device)
        for images, y in self.images.batches(self._order(epoch)[self.batch :]):
            x = self._augmented(images, normalise)
            self.batch += 1  # before the yield: a state saved during this step must not repeat it
            yield x, y
        self.epoch, self.batch = epoch + 1, 0

    def raw(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The images in order as they are stored, (B, C, H, W) uint8, and labels, on the CPU."""
        for images, y in self.images.batches(self.index.split(self.batch_size)):
            yield images.cpu(), y.cpu()

    def drawn(self, epoch: int, batch: int) -> list[int]:
        """Positions of the images in a batch of an epoch; empty if there is no such batch."""
        order = self._order(epoch)
        return order[batch].tolist() if 0 <= batch < len(order) else []

    def _order(self, epoch: int) -> list[Tensor]:
        index = self.index
        if self.training:
            source = generator(self.seed, self.role, epoch)
            index = index[torch.randperm(len(index), generator=source)]
        return list(index.split(self.batch_size))[: len(self)]

    def _augmented(self, images: Tensor, normalise: Normalise) -> Tensor:
        if self.augment is None:
            return normalise(images)
        source = generator(self.seed, self.role, self.epoch, self.batch)
        draws = self.augment.draw(len(images), self.images.shape, source)
        draws = draws.to(images.device, non_blocking=True)
        return self.augment.cut(normalise(self.augment.move(images, draws)), draws)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Raises CheckpointError for a position outside this loader."""
        valid = set(state) == {"epoch", "batch"} and state["epoch"] >= 0
        if not valid or not 0 <= state["batch"] <= len(self):
            raise CheckpointError(
                f"data position of '{self.role}': {dict(state)}, expected an epoch and a batch "
                f"up to {len(self)}; keep the saved run's data and batch_size, or set resume=never"
            )
        self.epoch, self.batch = state["epoch"], state["batch"]
