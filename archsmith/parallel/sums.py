"""Sums over the processes of a run, differentiable to any order.

Two operations, each the derivative of the other:

- `summed`: the parts of all processes -> their sums, on each. Its derivative is `shared`.
- `shared`: replicated tensors -> the tensors each uses for its part. Its derivative is `summed`.

Each takes several tensors and sends them in one message, a flat bucket.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from archsmith.parallel import distributed


def _sent(parts: Sequence[Tensor], over: int = 1) -> tuple[Tensor, ...]:
    """The sums over the processes, in one message, divided by `over`."""
    flat = torch.cat([part.flatten() for part in parts])
    distributed.all_reduce(flat)
    if over > 1:
        flat /= over
    wholes = zip(flat.split([part.numel() for part in parts]), parts, strict=True)
    return tuple(whole.view(part.shape).to(part.dtype) for whole, part in wholes)


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _sent(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _applied(_Share, gradients)


class _Share(Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _applied(_Sum, gradients)


def _applied(function: type[Function], tensors: Iterable[Tensor | None]) -> tuple[Any, ...]:
    """Applies the function to the tensors that are not None; the others have no gradient."""
    tensors = list(tensors)
    made = iter(function.apply(*(t for t in tensors if t is not None)))
    return tuple(None if t is None else next(made) for t in tensors)


def summed(parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The sums of the parts of all processes, on each."""
    found: tuple[Tensor, ...] = _Sum.apply(*parts)
    return found


@torch.no_grad()
def means(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The means over the processes."""
    return _sent(tensors, distributed.size())


def shared(tensors: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Shares all tensors that need a gradient at once: one message in the backward pass."""
    wanted = [t if t is not None and t.requires_grad else None for t in tensors]
    if not torch.is_grad_enabled() or all(t is None for t in wanted):
        return tuple(tensors)
    made = _applied(_Share, wanted)
    return tuple(t if new is None else new for t, new in zip(tensors, made, strict=True))
