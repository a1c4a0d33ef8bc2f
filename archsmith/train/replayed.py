"""Forward passes in eval mode that are captured once as a CUDA graph and replayed."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from archsmith.train.replay import Capture, cause

log = logging.getLogger(__name__)


class Replayed:
    """A pass x -> logits; what it returns is valid until it is called again.

    For each shape of x the first call is eager, the second is captured, later ones are replayed.
    After a capture that fails all are eager, which is logged.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], capture: Capture):
        self.compute = compute
        self.capture: Capture | None = capture
        self.graphs: dict[torch.Size, tuple[Tensor, Tensor, Callable[[], object]] | None] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if self.capture is None or x.shape not in self.graphs:
            self.graphs[x.shape] = None  # it ran eagerly once
            return self.compute(x)
        graph = self.graphs[x.shape]
        if graph is None:
            held = x.clone()
            try:
                logits, replay = self.capture(lambda: self.compute(held))
            except RuntimeError as error:
                log.warning(
                    "CUDA graphs: an evaluation cannot be captured (%s); it is computed operation "
                    "by operation",
                    cause(error),
                )
                self.capture = None
                return self.compute(x)
            self.graphs[x.shape] = held, logits, replay
            return logits
        held, logits, replay = graph
        held.copy_(x)
        replay()
        return logits
