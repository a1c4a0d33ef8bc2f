"""All options of an MBConv block in one: each is a part of the widest one's weights.

Source: Stamoulis et al. 2019, arXiv:1904.02877, section 3.1.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops import MBConv
from supernets.mixed_op import Candidate, MixedOp

PARTS = [(3, 3), (3, 6), (5, 3), (5, 6)]  # (kernel size, expansion)
HALF, KERNEL, CENTRE = 3, 5, slice(1, 4)


class SuperKernelOp(nn.Module):
    """An MBConv whose 5x5 depthwise kernels contain the 3x3 ones in their centres, and whose first
    half of the channels (expansion 3) stands without the second one (expansion 6).

    With the gates (O,) of its options, of sum 1, and x (B, C, H, W):

        y = x + keep * norm(first(x; ring) + wide * second(x; ring))

    keep is the sum of the gates of all MBConv options, ring and wide are the shares in it of the
    5x5 options and of those of expansion 6; ring multiplies the outer ring of all kernels. x is
    added where MBConv adds it. So a single option of gate 1 gives exactly the MBConv with its part
    of the weights, and a skip the identity.

    In the public code the gates multiply depthwise kernels, before a batch norm: the norm's shift
    passes a closed gate, so that a skip is no identity there; and the norm takes the scale away, so
    that gates get no gradient. Hence here the second half and the block are gated behind their
    norms, which each half has on its own.

    A row of one option holds that option. Raises ValueError for other rows than MBConv options of
    3x3 and 5x5 and expansions 3 and 6, all four, with or without a skip connection.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        c_in: int,
        c_out: int,
        stride: int,
        *,
        affine: bool = False,
    ):
        super().__init__()
        self.parts = [_part(op) for op in candidates]
        self.only = len(candidates) == 1
        if self.only:
            self.op = MixedOp(candidates, c_in, c_out, stride, affine=affine)
            return
        if sorted(part for part in self.parts if part) != PARTS or self.parts.count(None) > 1:
            raise ValueError(
                "a super-kernel holds mbconv_3x3_e3, mbconv_3x3_e6, mbconv_5x5_e3 and "
                f"mbconv_5x5_e6, and perhaps a skip_connect, found {len(candidates)} others; set "
                "space=mbconv with these candidates, or another strategy/mixed_op"
            )
        self.first = Half(c_in, c_out, stride, affine=affine)
        self.second = Half(c_in, c_out, stride, affine=affine)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor, gates: Tensor, active: Sequence[int]) -> Tensor | None:
        """gates (O,); active: the options that run. None where none does."""
        if self.only or not active:
            return self.op(x, gates, active) if self.only else None
        sized = {o: part for o in active if (part := self.parts[o])}
        y = total(gates, active) * x if self.residual else None
        if not sized:
            return y
        keep = total(gates, sized)
        kernels = [o for o, (size, _) in sized.items() if size == KERNEL]
        wide = [o for o, (_, expansion) in sized.items() if expansion > HALF]
        ring = share(total(gates, kernels), keep) if kernels else None
        z = self.first(x, ring)
        if wide:
            z = z + share(total(gates, wide), keep) * self.second(x, ring)
        block = keep * self.norm(z)
        return block if y is None else y + block

    def ring_norm(self) -> Tensor:
        """The Frobenius norm of the outer rings of all kernels, 0-dim."""
        return torch.stack([half.ring().norm() for half in (self.first, self.second)]).norm()

    def half_norms(self, ring: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the kernels of the first and of the second half, with gated rings; 0-dim."""
        return self.first.kernels(ring).norm(), self.second.kernels(ring).norm()


def _part(op: Candidate) -> tuple[int, int] | None:
    """Kernel size and expansion of an MBConv option; None for others."""
    if isinstance(op, partial) and op.func is MBConv:
        return op.keywords["kernel_size"], op.keywords["expansion"]
    return None


def total(gates: Tensor, options: Iterable[int]) -> Tensor:
    """The sum of the gates (O,) of some options, 0-dim; a list as an index would be copied to the
    device."""
    return torch.stack([gates[o] for o in options]).sum()


def share(gate: Tensor, keep: Tensor) -> Tensor:
    """gate / keep, and 1 where keep is 0: a closed block is judged by its widest option; 0-dim."""
    return torch.where(keep == 0, 1.0, gate / torch.where(keep == 0, 1.0, keep))


class Half(nn.Module):
    """Three times the input channels: expanded, convolved depthwise, projected (without a norm)."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool):
        super().__init__()
        hidden = HALF * c_in
        self.expand = nn.Sequential(
            nn.Conv2d(c_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden, affine=affine),
            nn.ReLU6(),
        )
        self.depthwise = nn.Conv2d(
            hidden, hidden, KERNEL, stride, KERNEL // 2, groups=hidden, bias=False
        )
        self.project = nn.Sequential(
            nn.BatchNorm2d(hidden, affine=affine),
            nn.ReLU6(),
            nn.Conv2d(hidden, c_out, 1, bias=False),
        )
        outer = torch.ones(KERNEL, KERNEL)
        outer[CENTRE, CENTRE] = 0
        self.outer: Tensor
        self.register_buffer("outer", outer, persistent=False)

    def forward(self, x: Tensor, ring: Tensor | None) -> Tensor:
        """x (B, C, H, W), the gate of the ring (None: 3x3 kernels) -> (B, C', H/s, W/s)."""
        conv = self.depthwise
        weight = conv.weight[:, :, CENTRE, CENTRE] if ring is None else self.kernels(ring)
        padding = weight.size(-1) // 2
        y = F.conv2d(self.expand(x), weight, None, conv.stride, padding, groups=conv.groups)
        return self.project(y)

    def ring(self) -> Tensor:
        """The kernels (C, 1, 5, 5) without their centres."""
        return self.depthwise.weight * self.outer

    def kernels(self, ring: Tensor) -> Tensor:
        """The kernels (C, 1, 5, 5) with gated rings."""
        return self.depthwise.weight * (1 - self.outer + ring * self.outer)
