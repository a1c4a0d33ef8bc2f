"""What must hold of every tensor before a kernel gets its address."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from supernets.native.projection import Projection
    from supernets.native.source import Given, Gradients, Source

Shape = tuple[int, ...]


def check_tensor(name: str, t: Tensor, shape: Shape) -> None:
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
    """As `check_tensor`; raises ValueError also where numbers do not lie one after the other."""
    if t is None:
        return
    check_tensor(name, t, shape)
    if not t.is_contiguous():
        raise ValueError(
            f"native kernels: {name} {shape} has strides {t.stride()}, expected it contiguous"
        )


def check_written(name: str, t: Tensor, shape: Shape) -> None:
    """As `check_tensor`; raises ValueError also where numbers share memory."""
    check_tensor(name, t, shape)
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
    check_tensor("x", x, (B, channels[0], H, W))
    out = (B, channels[1], -(-H // stride), -(-W // stride))
    for t in y:
        (check_written if dx is None else check_tensor)("y" if dx is None else "dy", t, out)
    if dx is not None:
        check_written("dx", dx, (B, channels[0], H, W))


def check_source(
    source: "Source", given: "Given", y: Sequence[Tensor], to: "Gradients | None"
) -> None:
    """All that a pass hands over: the outputs y, or in a backward pass their gradients and where it
    writes `to`. Raises TypeError, ValueError."""
    E, x, channels = source.edges, given.x, source.channels(given.x)
    convs = [alike[0] for kind in source.kinds for alike in kind.convs]
    C = convs[0].in_channels if convs else channels
    if any(m.in_channels != C for m in convs):
        raise ValueError(f"native kernels: a convolution of an edge has not its {C} channels")
    check_maps(x, y, to.x if to else None, (C * source.k, C * source.k), source.stride)
    check_count("outputs", y, E)
    check_dense("gates", given.gates, (len(source.kinds) * E,))
    check_dense("factors", given.factors, (E,))
    check_dense("keep", given.keep, (x.shape[0], E))
    check_dense("moments", given.moments, (sum(source.norms) * 3 * E * C,))
    check_weights(given.weights, source.shapes)
    check_count("parts of kept maps", given.kept, len(source.kinds))
    if any(t is not None for t in given.kept):
        for t, maps in zip(given.kept, source.maps, strict=True):
            check_dense("kept maps", t, (maps * source.map_floats(x),))
    for affine in (given.affine, to.affine if to else ()):
        for norms, t in zip(source.norms, affine, strict=False):
            check_dense("scale and shift", t, (norms, 2, E, C))
    if source.k > 1 and given.factors is None:
        raise ValueError("native kernels: factors are None, expected those of what bypasses")
    if to is not None:
        check_dense("the gates' gradient", to.gates, (len(source.kinds) * E,))
        check_dense("the factors' gradient", to.factors, (E,))
        check_dense("the weights' gradient", to.weights, (sum(source.floats),))


def check_weights(weights: Sequence[Tensor], shapes: Sequence[Shape]) -> None:
    """There are many, so that each is looked at closely only where something does not fit."""
    check_count("weights", weights, len(shapes))
    if all(
        w.shape == shape and w.dtype is torch.float32 and w.is_cpu and w.is_contiguous()
        for w, shape in zip(weights, shapes, strict=True)
    ):
        return
    for weight, shape in zip(weights, shapes, strict=True):
        check_dense("a weight", weight, shape)


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
