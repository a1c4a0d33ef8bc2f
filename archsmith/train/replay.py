"""Captures a pass and its gradients once as a CUDA graph and replays it.

A step consists of thousands of small operations, and launching them one by one takes longer than
computing them. A replay launches a whole pass at once, on the captured addresses.
"""

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from strategies.gradients import Batch, Compute, Metrics
from supernets.frozen import frozen_statistics

log = logging.getLogger(__name__)

# Runs a function; returns its result, and a function that recomputes it into the same tensors.
Capture = Callable[[Callable[[], Any]], tuple[Any, Callable[[], object]]]

CHECKS = 2  # comparisons of a pass: on the batch of its capture, and on the next one
# Relative tolerances, graph to eager, of the gradients of weights and of alphas, which are small
# differences of large sums.
AGREES = {torch.float32: (1e-3, 1e-2), torch.bfloat16: (5e-2, 1e-1)}
MENDED_CAPTURE = "2.15"  # first torch version whose CUDA allocator survives a failed capture


class Owner(Protocol):
    """Whose passes are captured."""

    def constants(self) -> Hashable | None:
        """All that its passes read except tensors that are changed in place; None: unknown."""
        ...

    def arch_parameters(self) -> Sequence[Tensor]:
        """Parameters whose gradients are compared apart from those of the weights."""
        ...


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
        if self.copies:
            torch._foreach_copy_(self.copies, self.gradients)
        for parameter, gradient in zip(self.parameters, self.copies, strict=True):
            parameter.grad = gradient
        return {key: value.clone() for key, value in self.metrics.items()}


class Replay:
    """An owner's `gradients`: the first pass of a kind runs eagerly, the second is captured, later
    ones are replayed.

    A kind is a name and the shapes of its batches. All graphs are dropped when a constant of a pass
    changes (`Strategy.constants`, by pruning for example), and nothing is captured if the constants
    are unknown. The first graph of each name is compared with the same pass run eagerly, on the
    batch with which it was captured and on the next one, by which schedules have moved on. Until
    then the step has the eager pass's gradients. If they differ, or the capture fails, a warning is
    logged and all later passes are eager.

    Random numbers come from the device's default generator, which torch registers with each graph:
    a replay draws what the eager pass would draw, and leaves the same state.

    Optimisers are not part of a graph, as they need few launches (foreach), so learning rates,
    moments and checkpoints work as without graphs.

    Args:
        capturing: creates a `Capture`; graphs that are dropped together share one.
        precision: the type of autocast, if the owner's passes have one that is not the network's.
    """

    def __init__(
        self,
        owner: Owner,
        net: nn.Module,
        capturing: Callable[[], Capture],
        precision: torch.dtype | None = None,
    ):
        self.owner, self.net, self.capturing, self.precision = owner, net, capturing, precision
        self.capture: Capture | None = None
        self.constants: Hashable = None
        self.graphs: dict[Hashable, Graph | None] = {}  # None: ran eagerly once
        self.agreed: Counter[str] = Counter()  # comparisons of a name that found no difference
        self.off = False

    def __call__(
        self, name: str, compute: Compute, batches: Sequence[Batch], wanted: Sequence[Tensor]
    ) -> Metrics:
        """Returns the pass's metrics and fills `.grad` of `wanted`, which must be None before."""
        constants = None if self.off else self.owner.constants()
        if constants != self.constants:
            self._drop()
            self.constants = constants
        if constants is None:
            return compute(*batches)
        kind = name, tuple(part.shape for batch in batches for part in batch)
        if kind not in self.graphs:
            self.graphs[kind] = None
            return compute(*batches)
        graph, trusted = self.graphs[kind], self.agreed[name] >= CHECKS
        before = None if trusted else self.generator.get_state()
        if graph is None:
            graph = self._captured(name, compute, batches, wanted)
            if graph is None:
                return compute(*batches)
            self.graphs[kind] = graph
        else:
            for held, batch in zip(graph.batches, batches, strict=True):
                torch._foreach_copy_(held, batch)
            graph.replay()
        found = graph.hand_over()
        return found if before is None else self._checked(name, compute, graph, found, before)

    @property
    def generator(self) -> torch.Generator:
        """Of the network's device, from which operations draw."""
        device = next(self.net.parameters()).device
        if device.type == "cuda":
            return torch.cuda.default_generators[device.index]
        return torch.default_generator

    def _captured(
        self, name: str, compute: Compute, batches: Sequence[Batch], wanted: Sequence[Tensor]
    ) -> Graph | None:
        """The graph, which has run once on these batches; None if it cannot be captured."""
        held, before = [(x.clone(), y.clone()) for x, y in batches], self.generator.get_state()
        self.capture = self.capture or self.capturing()
        # Eagerly first: passes since its last run, such as those that measure the supernet, may
        # have replaced what it keeps on the device, and a capture cannot copy anything there.
        with frozen_statistics(self.net):
            compute(*batches)
        self._undo(wanted, before)
        try:
            metrics, replay = self.capture(lambda: compute(*held))
        except RuntimeError as error:
            self._give_up(f"the pass '{name}' cannot be captured ({cause(error)})")
            self._undo(wanted, before)
            return None
        parameters = [parameter for parameter in wanted if parameter.grad is not None]
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        copies = [torch.empty_like(gradient) for gradient in gradients]
        return Graph(held, metrics, gradients, parameters, copies, replay)

    def _undo(self, wanted: Sequence[Tensor], before: Tensor) -> None:
        """Drops a pass's gradients and random draws."""
        self.generator.set_state(before)
        for parameter in wanted:
            parameter.grad = None

    def _checked(
        self, name: str, compute: Compute, graph: Graph, found: Metrics, before: Tensor
    ) -> Metrics:
        """Compares what a graph found with the eager pass from the same state of the generator;
        returns the latter's metrics and leaves its gradients.

        Where memory does not suffice for both, the graph's are used, unchecked.
        """
        after = self.generator.get_state()
        self._undo(graph.parameters, before)
        try:
            with frozen_statistics(self.net):
                metrics = compute(*graph.batches)
        except torch.OutOfMemoryError:
            metrics = None
        if metrics is None:
            self.agreed[name] = CHECKS
            metrics = graph.hand_over()
            log.info("CUDA graphs: memory does not suffice to check the pass '%s'", name)
        else:
            self._compare(name, graph, found, metrics)
        self.generator.set_state(after)
        torch.cuda.empty_cache()  # what the eager pass took, which no graph can use
        return metrics

    def _compare(self, name: str, graph: Graph, found: Metrics, metrics: Metrics) -> None:
        """Counts an agreement, or gives up."""
        precision = self.precision or getattr(self.net, "autocast", None) or torch.float32
        for (what, pairs), tolerance in zip(
            self._pairs(graph, found, metrics), AGREES[precision], strict=True
        ):
            if pairs:
                length = torch.stack([eager.norm() for _, eager in pairs]).norm()
                distance = torch.stack([(ours - eager).norm() for ours, eager in pairs]).norm()
                if not distance <= tolerance * length:
                    by = f"{float(distance / length):.1e} in {what}"
                    self._give_up(f"a replay of the pass '{name}' differs from it by {by}")
                    return
        self.agreed[name] += 1

    def _pairs(
        self, graph: Graph, found: Metrics, metrics: Metrics
    ) -> Iterator[tuple[str, list[tuple[Tensor, Tensor]]]]:
        """What is compared, by the graph and eagerly: weights and alphas, of a pass without
        gradients its metrics."""
        apart = {id(parameter) for parameter in self.owner.arch_parameters()}
        every = [
            (id(p) in apart, (copy, p.grad))
            for p, copy in zip(graph.parameters, graph.copies, strict=True)
            if p.grad is not None
        ]
        if every:
            yield "weights", [pair for alone, pair in every if not alone]
        else:
            yield "metrics", [(found[key].float(), metrics[key].float()) for key in metrics]
        yield "alphas", [pair for alone, pair in every if alone]

    def _give_up(self, why: str) -> None:
        log.warning("CUDA graphs: %s; every pass is computed operation by operation", why)
        self.off = True
        self._drop()

    def _drop(self) -> None:
        self.graphs.clear()
        self.capture = None


def cause(error: BaseException) -> str:
    """The first of a chain of errors, and the last line of code outside torch that led to it. When
    a capture ends after an error, torch raises another, which says nothing of it."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    torch_code = str(Path(torch.__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(torch_code)
    ]
    where = f", {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return " ".join(str(error).split()) + where


def captures_safely(device: torch.device) -> bool:
    """Whether a capture on this device may fail without harm."""
    return device.type == "cuda" and torch.__version__ >= MENDED_CAPTURE


@cache
def capture_stream(device: int) -> torch.cuda.Stream:
    """The one stream of a device for all captures: libraries allocate a workspace for each stream
    that they see, and keep it."""
    return torch.cuda.Stream(device)


def cuda_capture() -> Capture:
    """A `Capture` into CUDA graphs that share one memory pool, on the current device."""
    pool, stream = torch.cuda.graph_pool_handle(), capture_stream(torch.cuda.current_device())

    def capture(compute: Callable[[], Any]) -> tuple[Any, Callable[[], Any]]:
        graph = torch.cuda.CUDAGraph()
        # Leaving the outer context restores the stream, also where the end of a capture raises.
        with (
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            result = compute()
        graph.replay()  # capturing alone computes nothing
        return result, graph.replay

    return capture
