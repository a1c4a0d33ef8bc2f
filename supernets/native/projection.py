"""ReLU, 1x1 convolution and batch norm, or a factorised reduction, by the native kernels.

The input and the batch norm's moments are kept for the backward pass, with `keeps` also what the
convolutions give.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from search_spaces.ops import FactorizedReduce, ReLUConvBN
from supernets.fused import record_statistics
from supernets.native.checks import check_dense, check_projection
from supernets.native.interface import CImage, CProjection, first_derivative_only, pointer, ran


@dataclass(frozen=True)
class Projection:
    """x (B, C, H, W) -> (B, C', H/s, W/s) as the module it was read from."""

    library: ctypes.CDLL
    convs: Sequence[nn.Conv2d]
    norm: nn.BatchNorm2d
    keeps: bool = False  # what the convolutions give, for the backward pass

    @classmethod
    def of(cls, op: nn.Module, library: ctypes.CDLL, *, keeps: bool = False) -> "Projection | None":
        """None where the kernels do not know the module."""
        if type(op) is ReLUConvBN:
            convs, norm, stride = [cast(nn.Conv2d, op[1])], cast(nn.BatchNorm2d, op[2]), 1
        elif type(op) is FactorizedReduce and len(op.convs) == 2:
            convs, norm, stride = [cast(nn.Conv2d, m) for m in op.convs], op.bn, 2
        else:
            return None
        plain = all(
            (m.kernel_size, m.stride, m.padding, m.groups, m.bias)
            == ((1, 1), (stride, stride), (0, 0), 1, None)
            for m in convs
        )
        return cls(library, convs, norm, keeps) if plain else None

    def __call__(self, x: Tensor) -> Tensor:
        affine = torch.stack([self.norm.weight, self.norm.bias]) if self.norm.affine else None
        return Project.apply(x, self, affine, *(m.weight.contiguous() for m in self.convs))

    def moments(self, x: Tensor) -> Tensor:
        """(3, C'): mean, 1 / deviation, variance; filled in where they are not the batch's."""
        found, norm = x.new_empty(3, self.norm.num_features), self.norm
        if not norm.training:
            found[0] = cast(Tensor, norm.running_mean)
            found[1] = (cast(Tensor, norm.running_var) + norm.eps).rsqrt()
        return found

    def map_floats(self, y: Tensor) -> int:
        """Of what the convolutions give, as the kernels lay it out."""
        lanes: int = self.library.map_lanes(y.size(1), 1)
        return y.size(0) * y.size(2) * y.size(3) * lanes

    def call(
        self,
        training: bool,
        x: Tensor,
        y: Tensor,
        moments: Tensor,
        affine: Tensor | None,
        weights: Sequence[Tensor],
        kept: Tensor | None,
        into: "ProjectionGradients | None" = None,
    ) -> None:
        """The forward pass to y, or with `into` the backward pass from y = dL/dy. Raises
        MemoryError; of tensors that do not fit TypeError, ValueError."""
        dx, gradients, affine_gradients = into or (None, None, None)
        name = "projection_forward" if into is None else "projection_backward"
        check_projection(self, x, y, moments, weights, dx, gradients, (affine, affine_gradients))
        check_dense("kept maps", kept, (self.map_floats(y),))
        what = CProjection(
            *x.shape, moments.size(1), self.convs[0].stride[0], len(weights),
            training, torch.get_num_threads(), self.norm.eps,
            (ctypes.c_void_p * 2)(*(w.data_ptr() for w in weights)), moments.data_ptr(),
            pointer(gradients), pointer(affine), pointer(affine_gradients), pointer(kept),
            CImage.of(x), CImage.of(x if dx is None else dx), CImage.of(y),
        )  # fmt: skip
        ran(getattr(self.library, name)(ctypes.byref(what)))


class ProjectionGradients(NamedTuple):
    """Where a backward pass writes."""

    x: Tensor
    weights: Tensor | None
    affine: Tensor | None


class Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, what: Projection, affine: Tensor | None, *weights: Tensor
    ) -> Tensor:
        B, _, H, W = x.shape
        stride = what.convs[0].stride[0]
        y = x.new_empty(B, -(-H // stride), -(-W // stride), what.norm.num_features)
        y, moments = y.permute(0, 3, 1, 2), what.moments(x)
        ctx.what, ctx.training = what, what.norm.training
        wanted = what.keeps and any(ctx.needs_input_grad)
        kept = x.new_empty(what.map_floats(y)) if wanted else None
        what.call(ctx.training, x, y, moments, affine, weights, kept)
        if what.norm.training and what.norm.track_running_stats:
            record_statistics([what.norm], [moments[0]], [moments[2]])
        ctx.save_for_backward(x, moments, affine, kept, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        first_derivative_only()
        x, moments, affine, kept, *weights = ctx.saved_tensors
        dx, gradients = torch.empty_like(x), None
        d_affine = None if affine is None else torch.empty_like(affine)
        parts: Sequence[Tensor | None] = [None] * len(weights)
        if any(ctx.needs_input_grad[3:]):
            gradients = x.new_empty(sum(w.numel() for w in weights))
            split = gradients.split([w.numel() for w in weights])
            parts = [part.view(w.shape) for part, w in zip(split, weights, strict=True)]
        into = ProjectionGradients(dx, gradients, d_affine)
        ctx.what.call(ctx.training, x, dy, moments, affine, weights, kept, into)
        return dx, None, d_affine, *parts
