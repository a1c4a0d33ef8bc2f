"""A batch computed in parts, so that only one part's activations are in memory at a time.

Each part is computed again for its gradient (Chen et al. 2016, arXiv:1604.06174), so the loss is
that of the whole batch, whatever its terms, and a step takes a third longer. Batch norms see the
parts: their statistics are those of smaller batches, and that is the one difference.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def in_parts(net: Callable[[Tensor], Tensor], x: Tensor, parts: int, module: nn.Module) -> Tensor:
    """`net(x)` in at most so many parts of 2 images or more; `module` holds its batch norms."""
    parts = min(parts, len(x) // 2)
    if parts <= 1:
        return net(x)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), StillStatistics(module)

    return torch.cat(
        [
            checkpoint(net, part, use_reentrant=False, context_fn=contexts)
            for part in x.tensor_split(parts)
        ]
    )


class StillStatistics:
    """A part computed again saves what it did the first time, but records no statistics."""

    def __init__(self, module: nn.Module):
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self.norms = [m for m in norms if m.track_running_stats and m.running_mean is not None]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm, (_, tracked) in zip(self.norms, self.before, strict=True):
            norm.momentum = 0.0
            norm.num_batches_tracked = None if tracked is None else tracked.clone()

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, tracked) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
