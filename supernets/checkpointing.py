"""Activation checkpointing: a cell keeps its inputs, and runs again in the backward pass.

Source: Chen et al. 2016, arXiv:1604.06174.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def unmoved_statistics(net: nn.Module) -> Iterator[None]:
    """Batch norms do all they did before, but their statistics end as they are now."""
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(m.momentum, cast(Tensor, m.num_batches_tracked).clone()) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            cast(Tensor, norm.num_batches_tracked).copy_(batches)


def checkpointed(layer: nn.Module, inputs: Sequence[Tensor], *rest: Any) -> Tensor:
    """`layer(inputs, *rest)`; batch norms record their statistics in the first pass only.

    The second pass runs on the weights of the first, also where those were replaced for it.
    """
    weights: dict[str, Tensor] = dict(layer.named_parameters())

    def run(*inputs: Tensor) -> Tensor:
        return functional_call(layer, weights, (inputs, *rest))

    return checkpoint(
        run,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), unmoved_statistics(layer)),
    )
