"""Cutout: a square of an image is zeroed. DeVries & Taylor 2017, arXiv:1708.04552."""

import torch
from torch import Tensor


def cutout(x: Tensor, centres: Tensor, size: int) -> Tensor:
    """Zeroes a square around each centre, clipped at the borders: x (B, C, H, W), centres (B, 2).

    Source: DeVries & Taylor 2017, arXiv:1708.04552, as in DARTS. A square of even size extends one
    pixel further up and left of its centre; one of odd size keeps its size, while the DARTS code
    shrinks it by one.
    """

    def inside(length: int, centre: Tensor) -> Tensor:
        distance = torch.arange(length, device=x.device) - (centre[:, None] - size // 2)
        return (distance >= 0) & (distance < size)  # (B, length)

    rows, columns = inside(x.size(2), centres[:, 0]), inside(x.size(3), centres[:, 1])
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
