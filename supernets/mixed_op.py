"""The mixed op: an edge's candidates evaluated together. This is the readable reference form."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from search_spaces.settings import Count, checked

Candidate = Callable[..., nn.Module]


class MixedOp(nn.Module):
    """Candidates summed by their gates: y = sum_o g_o op_o(x). DARTS (arXiv:1806.09055), eq. 2.

    x (B, C, H, W); gates (O,) of this edge, differentiable; active: the candidates to run. Returns
    None where nothing is active.
    """

    def __init__(
        self, candidates: Sequence[Candidate], channels: int, stride: int, *, affine: bool = False
    ):
        super().__init__()
        self.ops = nn.ModuleList(
            op(channels, channels, stride, affine=affine, search=True) for op in candidates
        )

    def forward(self, x: Tensor, gates: Tensor, active: Sequence[int]) -> Tensor | None:
        total = None
        for o in active:
            y = gates[o] * self.ops[o](x)
            total = y if total is None else total + y
        return total


class PartialMixedOp(nn.Module):
    """A mixed op on the first C/k channels; the others bypass it, then all are shuffled.

    Activation memory of the edge falls about k times. With k = 1 it is a full mixed op, bit for
    bit.
    Source: Xu et al. 2020, arXiv:1907.05737; the slice is the first C/k channels, as in the public
        code.

    Raises:
        ValueError: `channels` is not a multiple of `k`.
    """

    @checked
    def __init__(
        self,
        candidates: Sequence[Candidate],
        channels: int,
        stride: int,
        *,
        k: Count,
        affine: bool = False,
    ):
        super().__init__()
        if channels % k:
            raise ValueError(
                f"k: {channels} channels cannot be split into k={k} equal parts; set k to a "
                f"divisor of {channels}, or the space's channels to a multiple of {k}"
            )
        self.k = k
        self.mixed = MixedOp(candidates, channels // k, stride, affine=affine)
        self.bypass = nn.MaxPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor, gates: Tensor, active: Sequence[int]) -> Tensor | None:
        if self.k == 1 or not active:
            return self.mixed(x, gates, active)
        head, tail = x.tensor_split([x.size(1) // self.k], dim=1)  # C/k channels, C - C/k channels
        y = torch.cat([self.mixed(head, gates, active), self.bypass(tail)], 1)
        return y.unflatten(1, (self.k, -1)).transpose(1, 2).flatten(1, 2)


class ChosenOps(nn.Module):
    """What an edge of a final network holds: its kept candidates, summed, with drop-path.

    Drop-path drops an op's output for single images with probability `drop` and rescales the rest;
    a stride-1 identity is never dropped. Source: DARTS public code; Larsson et al. 2017,
    arXiv:1605.07648.
    """

    def __init__(self, candidates: Sequence[Candidate], channels: int, stride: int):
        super().__init__()
        self.ops = nn.ModuleList(
            op(channels, channels, stride, affine=True, search=False) for op in candidates
        )
        self.drop = 0.0

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for op in self.ops:
            y, keep = op(x), self.keep(op, x)
            outputs.append(y if keep is None else y * keep.to(y.dtype))
        return sum(outputs[1:], outputs[0])

    def keep(self, op: nn.Module, x: Tensor) -> Tensor | None:
        """What drop-path multiplies an op's output by, drawn at each call: (B, 1, 1, 1); None
        where nothing is dropped."""
        if self.training and self.drop > 0 and not isinstance(op, nn.Identity):
            return self.kept(x) / (1.0 - self.drop)
        return None

    def kept(self, x: Tensor) -> Tensor:
        """For which images an op's output is kept, drawn at each call: (B, 1, 1, 1), 0 or 1."""
        return torch.empty(x.size(0), 1, 1, 1, device=x.device).bernoulli_(1.0 - self.drop)
