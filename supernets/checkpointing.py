"""Activation checkpointing: a cell keeps its inputs, and runs again in the backward pass.

Source: Chen et al. 2016, arXiv:1604.06174.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class UnmovedStatistics:
    """Within, batch norms do all they did before, but their statistics end as they are now.

    It may be entered again: a second derivative runs a pass once more.
    """

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
        context_fn=lambda: (nullcontext(), UnmovedStatistics(layer)),
    )
