"""Images in which a convolution alone tells the classes apart: stripes, upright or lying, of any
phase, so that their means are equal."""

import torch
from torch import Tensor, nn

SIDE = 8


class OtherImages(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, 0)


def stripes(source: torch.Generator) -> tuple[Tensor, Tensor]:
    """x (32, 1, 8, 8), y (32,)."""
    y = torch.randint(2, (32,), generator=source)
    wave = torch.arange(SIDE) * torch.pi / 2 + 2 * torch.pi * torch.rand(32, 1, generator=source)
    lying = wave.sin()[:, :, None].expand(32, SIDE, SIDE)
    x = torch.where(y[:, None, None] == 1, lying, lying.mT)
    return (x + 0.3 * torch.randn(x.shape, generator=source))[:, None], y
