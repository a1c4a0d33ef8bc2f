"""Captures a pass and its gradients once as a CUDA graph and replays it.

A search step consists of thousands of small operations, and launching them one by one takes longer
than computing them. A replay launches a whole pass at once, on the captured addresses.
"""

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from strategies.gradients import Batch, Compute, Metrics
from supernets.frozen import frozen_statistics

if TYPE_CHECKING:
    from strategies.strategy import Strategy

log = logging.getLogger(__name__)

# Runs a function; returns its result, and a function that recomputes it into the same tensors.
Capture = Callable[[Callable[[], Metrics]], tuple[Metrics, Callable[[], object]]]

AGREES = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # relative tolerance, graph to eager


class Graph(NamedTuple):
    """The tensors of a graph; its outputs are valid until another graph of its pool is replayed."""

    batches: list[Batch]
    metrics: Metrics
    gradients: list[Tensor]
    parameters: list[Tensor]  # the parameters of `gradients`
    copies: list[Tensor]  # of the gradients, for `.grad`, in separate memory
    replay: Callable[[], object]

    def hand_over(self) -> Metrics:
        """Copies the gradients into `.grad` and returns the metrics."""
        torch._foreach_copy_(self.copies, self.gradients)
        for parameter, gradient in zip(self.parameters, self.copies, strict=True):
            parameter.grad = gradient
        return {key: value.clone() for key, value in self.metrics.items()}


class Replay:
    """A strategy's `gradients`: the first pass of a kind runs eagerly, the second is captured,
    later ones are replayed.

    A kind is a name and the shapes of its batches. All graphs are dropped when a constant of a pass
    changes (`Strategy.constants`, by pruning for example), and nothing is captured if the constants
    are unknown. The first graph of each name is compared with the same pass run eagerly; if the
    gradients differ, or the capture fails, a warning is logged and all later passes are eager.

    Optimisers are not part of a graph, as they need few launches (foreach), so learning rates,
    moments and checkpoints work as without graphs.

    Args:
        capturing: creates a `Capture`; graphs that are dropped together share one.
    """

    def __init__(self, strategy: "Strategy", net: nn.Module, capturing: Callable[[], Capture]):
        self.strategy, self.net, self.capturing = strategy, net, capturing
        self.capture: Capture | None = None
        self.constants: Hashable = None
        self.graphs: dict[Hashable, Graph | None] = {}  # None: ran eagerly once
        self.trusted: set[str] = set()
        self.off = False

    def __call__(
        self, name: str, compute: Compute, batches: Sequence[Batch], wanted: Sequence[Tensor]
    ) -> Metrics:
        """Returns the pass's metrics and fills `.grad` of `wanted`, which must be None before."""
        constants = None if self.off else self.strategy.constants()
        if constants != self.constants:
            self._drop()
            self.constants = constants
        if constants is None:
            return compute(*batches)
        kind = name, tuple(part.shape for batch in batches for part in batch)
        if kind not in self.graphs:
            self.graphs[kind] = None
            return compute(*batches)
        graph = self.graphs[kind]
        if graph is None:
            graph = self._captured(name, compute, batches, wanted)
            if graph is None:
                return compute(*batches)
            self.graphs[kind] = graph
            found = graph.hand_over()
            return found if name in self.trusted else self._checked(name, compute, graph, found)
        for held, batch in zip(graph.batches, batches, strict=True):
            torch._foreach_copy_(held, batch)
        graph.replay()
        return graph.hand_over()

    def _captured(
        self, name: str, compute: Compute, batches: Sequence[Batch], wanted: Sequence[Tensor]
    ) -> Graph | None:
        """The graph, which has run once on these batches; None if it cannot be captured."""
        held = [(x.clone(), y.clone()) for x, y in batches]
        self.capture = self.capture or self.capturing()
        try:
            metrics, replay = self.capture(lambda: compute(*held))
        except RuntimeError as error:
            self._give_up(f"the pass '{name}' cannot be captured ({' '.join(str(error).split())})")
            for parameter in wanted:
                parameter.grad = None
            return None
        parameters = [parameter for parameter in wanted if parameter.grad is not None]
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        copies = [torch.empty_like(gradient) for gradient in gradients]
        return Graph(held, metrics, gradients, parameters, copies, replay)

    def _checked(self, name: str, compute: Compute, graph: Graph, found: Metrics) -> Metrics:
        """Compares a graph's result with the eager pass; returns the latter if they differ."""
        for parameter in graph.parameters:
            parameter.grad = None
        try:
            with frozen_statistics(self.net):
                metrics = compute(*graph.batches)
        except torch.OutOfMemoryError:
            found = graph.hand_over()
            self._give_up("memory does not suffice for a graph and a pass beside it")
            return found
        pairs = list(zip(graph.copies, (p.grad for p in graph.parameters), strict=True))
        length = torch.stack([g.norm() for _, g in pairs if g is not None]).norm()
        distance = torch.stack([(f - g).norm() for f, g in pairs if g is not None]).norm()
        precision = getattr(self.net, "autocast", None) or torch.float32
        if distance <= AGREES[precision] * length:
            self.trusted.add(name)
            return found
        self._give_up(
            f"a replay of the pass '{name}' differs from it by {float(distance / length):.1e}"
        )
        return metrics

    def _give_up(self, why: str) -> None:
        log.warning("CUDA graphs: %s; every pass is computed operation by operation", why)
        self.off = True
        self._drop()

    def _drop(self) -> None:
        self.graphs.clear()
        self.capture = None


def cuda_capture() -> Capture:
    """A `Capture` into CUDA graphs that share one memory pool, on the current device."""
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def capture(compute: Callable[[], Metrics]) -> tuple[Metrics, Callable[[], Any]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            metrics = compute()
        graph.replay()  # capturing alone computes nothing
        return metrics, graph.replay

    return capture
