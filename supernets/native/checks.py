"""What must hold of every tensor before a kernel gets its address."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from supernets.native.projection import Projection
    from supernets.native.source import Kind, Source

Shape = tuple[int, ...]


def check(name: str, t: Tensor, shape: Shape) -> None:
    """Raises TypeError where a tensor is not float32 on the CPU, ValueError for another shape."""
    if t.dtype is not torch.float32 or t.device.type != "cpu":
        raise TypeError(
            f"native kernels: {name} is {t.dtype} on {t.device}, expected torch.float32 on cpu"
        )
    if t.shape != shape:
        raise ValueError(f"native kernels: {name} is {tuple(t.shape)}, expected {shape}")


def check_count(name: str, found: Sequence[object], expected: int) -> None:
    if len(found) != expected:
        raise ValueError(f"native kernels: {len(found)} {name}, expected {expected}")


def check_dense(name: str, t: Tensor | None, shape: Shape) -> None:
    """As `check`; raises ValueError also where numbers do not lie one after the other."""
    if t is None:
        return
    check(name, t, shape)
    if not t.is_contiguous():
        raise ValueError(
            f"native kernels: {name} {shape} has strides {t.stride()}, expected it contiguous"
        )


def check_written(name: str, t: Tensor, shape: Shape) -> None:
    """As `check`; raises ValueError also where numbers share memory."""
    check(name, t, shape)
    reach = 1
    for stride, size in sorted(zip(t.stride(), shape, strict=True)):
        if size > 1 and stride < reach:
            raise ValueError(
                f"native kernels: {name} {shape} has strides {t.stride()}, "
                "expected every number in memory of its own"
            )
        reach += stride * (size - 1)


def check_maps(
    x: Tensor, y: Sequence[Tensor], dx: Tensor | None, channels: tuple[int, int], stride: int
) -> None:
    """Input (B, C, H, W) and its gradient; outputs (B, C', H/s, W/s), or, where there is a gradient
    of the input, theirs. `channels` are C and C'."""
    if x.dim() != 4:
        raise ValueError(f"native kernels: x is {tuple(x.shape)}, expected 4 dimensions")
    B, _, H, W = x.shape
    check("x", x, (B, channels[0], H, W))
    out = (B, channels[1], -(-H // stride), -(-W // stride))
    for t in y:
        (check_written if dx is None else check)("y" if dx is None else "dy", t, out)
    if dx is not None:
        check_written("dx", dx, (B, channels[0], H, W))


def check_source(
    source: "Source",
    x: Tensor,
    y: Sequence[Tensor],
    gates: Sequence[Tensor | None],
    factors: Sequence[Tensor | None],
    keep: Tensor | None,
    moments: Sequence[Tensor],
    affine: Sequence[Sequence[Tensor | None]],
    weights: Sequence[Tensor],
    dx: Tensor | None,
    gradients: Sequence[Tensor | None],
) -> None:
    """All that `Source.call` hands over; gates, factors and `affine` with their gradients. Raises
    TypeError, ValueError."""
    E, k = source.edges, source.k
    C = source.convs[0].in_channels if source.convs else x.shape[1] // k
    if any(alike[0].in_channels != C for kind in source.kinds for alike in kind.convs):
        raise ValueError(f"native kernels: a convolution of an edge has not its {C} channels")
    check_maps(x, y, dx, (C * k, C * k), source.stride)
    for t in gates:
        check_dense("gates", t, (len(source.kinds), E))
    for t in factors:
        check_dense("factors", t, (E,))
    check_dense("keep", keep, (x.shape[0], E))
    for of_kinds in affine:
        for kind, t in zip(source.kinds, of_kinds, strict=False):
            check_dense("scale and shift", t, (len(kind.norms), 2, E, C))
    shapes = [weight_shapes(kind) for kind in source.kinds]
    expected = [shape for of_kind in shapes for shape in of_kind for _ in range(E)]
    check_count("outputs", y, E)
    check_count("moments", moments, len(source.kinds))
    check_count("weights", weights, len(expected))
    for weight, shape in zip(weights, expected, strict=True):
        check_dense("a weight", weight, shape)
    for kind, stats in zip(source.kinds, moments, strict=True):
        check_dense("moments", stats, (len(kind.norms), 3, E, C))
    for of_kind, memory in zip(shapes, gradients, strict=False):  # none where none are wanted
        check_dense("gradients", memory, (E * sum(map(math.prod, of_kind)),))


def weight_shapes(kind: "Kind") -> list[Shape]:
    """Of the weights of an edge, in the order of `kind.convs`."""
    convs = [alike[0] for alike in kind.convs]
    return [(m.out_channels, m.in_channels // m.groups, *m.kernel_size) for m in convs]


def check_projection(
    projection: "Projection",
    x: Tensor,
    y: Tensor,
    moments: Tensor,
    weights: Sequence[Tensor],
    dx: Tensor | None,
    gradients: Tensor | None,
    affine: Sequence[Tensor | None],
) -> None:
    """All that `Projection.call` hands over. Raises TypeError, ValueError."""
    convs, channels = projection.convs, projection.norm.num_features
    inputs = convs[0].in_channels
    check_maps(x, [y], dx, (inputs, channels), convs[0].stride[0])
    check_dense("moments", moments, (3, channels))
    check_count("weights", weights, len(convs))
    for weight, conv in zip(weights, convs, strict=True):
        check_dense("a weight", weight, (conv.out_channels, inputs, 1, 1))
    check_dense("gradients", gradients, (channels * inputs,))
    for t in affine:
        check_dense("scale and shift", t, (2, channels))
