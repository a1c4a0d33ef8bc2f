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
        self,
        candidates: Sequence[Candidate],
        c_in: int,
        c_out: int,
        stride: int,
        *,
        affine: bool = False,
    ):
        super().__init__()
        self.ops = nn.ModuleList(
            op(c_in, c_out, stride, affine=affine, search=True) for op in candidates
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
        ValueError: `c_in` is not a multiple of `k`, or not `c_out`.
    """

    @checked
    def __init__(
        self,
        candidates: Sequence[Candidate],
        c_in: int,
        c_out: int,
        stride: int,
        *,
        k: Count,
        affine: bool = False,
    ):
        super().__init__()
        if c_in % k:
            raise ValueError(
                f"k: {c_in} channels cannot be split into k={k} equal parts; set k to a "
                f"divisor of {c_in}, or the space's channels to a multiple of {k}"
            )
        if k > 1 and c_in != c_out:
            raise ValueError(
                f"k: partial channels keep their number, but {c_in} become {c_out} here; take "
                "another mixed op, or k=1"
            )
        self.k = k
        self.mixed = MixedOp(candidates, c_in // k, c_out // k, stride, affine=affine)
        self.bypass = nn.MaxPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor, gates: Tensor, active: Sequence[int]) -> Tensor | None:
        if self.k == 1 or not active:
            return self.mixed(x, gates, active)
        head, tail = x.tensor_split([x.size(1) // self.k], dim=1)  # C/k channels, C - C/k channels
        y = torch.cat([self.mixed(head, gates, active), self.bypass(tail)], 1)
        return y.unflatten(1, (self.k, -1)).transpose(1, 2).flatten(1, 2)
