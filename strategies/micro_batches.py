"""A batch computed in parts, so that only one part's activations are in memory at a time.

Each part is computed again for its gradient (Chen et al. 2016, arXiv:1604.06174), so the loss is
that of the whole batch, whatever its terms, and a step takes a third longer. Batch norms see the
parts: their statistics are those of smaller batches, and that is the one difference.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

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
        return nullcontext(), still_statistics(module)

    return torch.cat(
        [
            checkpoint(net, part, use_reentrant=False, context_fn=contexts)
            for part in x.tensor_split(parts)
        ]
    )


@contextmanager
def still_statistics(module: nn.Module) -> Iterator[None]:
    """The second computation of a part saves what the first did, but records no statistics."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(m.momentum, m.num_batches_tracked) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
