"""The share of a batch that a process computes."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from archsmith.parallel import distributed


class Portion(NamedTuple):
    """The images [start, stop) of `total` that this process computes.

    A batch of too few images is computed whole by each process; `copies` is then the number of
    processes, else 1.
    """

    start: int
    stop: int
    total: int
    copies: int

    @classmethod
    def mine(cls, total: int, least: int = 1) -> "Portion":
        """least: the smallest number of images for one process."""
        rank, size = distributed.rank(), distributed.size()
        if total < least * size:
            return cls(0, total, total, size)
        each, more = divmod(total, size)
        start = rank * each + min(rank, more)
        return cls(start, start + each + (rank < more), total, 1)

    @classmethod
    def equal(cls, each: int) -> "Portion":
        """Of a batch of which every process has so many images."""
        start = distributed.rank() * each
        return cls(start, start + each, distributed.size() * each, 1)

    def padded(self, part: Tensor) -> Tensor:
        """The part (b, ...) among zeros (B, ...); of copies, its share."""
        if self.copies > 1:
            return part / self.copies
        others = [0, 0] * (part.dim() - 1)
        return F.pad(part, (*others, self.start, self.total - self.stop))

    def gathered(self, images: Tensor) -> Tensor:
        """The images (b, C, H, W) uint8 of all processes as (B, C, H, W), on each."""
        if len(images) == self.total:
            return images
        every = images.new_zeros(self.total, *images.shape[1:])
        every[self.start : self.stop] = images
        distributed.all_reduce(every)
        return every


def least_images() -> int:
    """A batch norm needs two images where maps are single values."""
    return 1 if distributed.sync_batch_norm else 2


current = Portion(0, 0, 0, 1)  # of the pass that runs
