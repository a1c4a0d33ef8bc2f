"""Micro-batches: only one part's activations are in memory at a time.

Each part is recomputed for its gradient (Chen et al. 2016, arXiv:1604.06174), so the loss is that
of the whole batch, whatever its terms, and a step takes a third longer. The only difference is that
batch norms use the statistics of each part.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from supernets.checkpointing import UnmovedStatistics


def in_parts(net: Callable[[Tensor], Tensor], x: Tensor, parts: int, module: nn.Module) -> Tensor:
    """`net(x)` in at most `parts` parts of at least 2 images; `module` contains its batch norms."""
    parts = min(parts, len(x) // 2)
    if parts <= 1:
        return net(x)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), UnmovedStatistics(module)

    return torch.cat(
        [
            checkpoint(net, part, use_reentrant=False, context_fn=contexts)
            for part in x.tensor_split(parts)
        ]
    )
