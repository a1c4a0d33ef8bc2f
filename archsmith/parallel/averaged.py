"""Gradients of a pass that every process computes for its own images: one message, their mean."""

from collections.abc import Sequence

import torch
from torch import Tensor

from archsmith.parallel import distributed
from archsmith.parallel.data_parallel import apart
from archsmith.parallel.portions import Portion, least_images
from archsmith.parallel.sums import means
from strategies.gradients import Batch, Compute, Gradients, Metrics, eagerly


class Averaged:
    """Computes a pass by `inner` on this process's images, then takes the means over the processes
    of gradients, metrics and moved running statistics, in one message.

    That is the pass of the whole batch where loss and metrics are means over images
    (`Ingredient.averages`). The pass itself sends nothing, so `inner` may capture it as a graph. A
    batch that does not divide into equal shares of at least two images is computed jointly.
    """

    def __init__(self, inner: Gradients):
        self.inner = inner
        # By the name of the pass: a replay runs no Python, and the pass that checks it moves none.
        self.moved: dict[str, list[Tensor]] = {}

    def __call__(
        self, name: str, compute: Compute, batches: Sequence[Batch], wanted: Sequence[Tensor]
    ) -> Metrics:
        sizes, count = [len(x) for x, _ in batches], distributed.size()
        if any(size % count or size < least_images() * count for size in sizes):
            return compute(*batches)
        portions = map(Portion.mine, sizes)
        own = [
            (x[p.start : p.stop], y[p.start : p.stop])
            for (x, y), p in zip(batches, portions, strict=True)
        ]
        before = [parameter.grad for parameter in wanted]
        for parameter in wanted:
            parameter.grad = None
        with apart() as passes:
            metrics = self.inner(name, compute, own, wanted)
        if moved := {id(t): t for one in passes for t in one}:
            self.moved[name] = list(moved.values())
        gradients = [p.grad for p in wanted if p.grad is not None]
        changed = [*gradients, *self.moved.get(name, ())]
        found = means([*changed, *metrics.values()])
        torch._foreach_copy_(changed, found[: len(changed)])
        for parameter, earlier in zip(wanted, before, strict=True):
            if earlier is not None:  # gradients add up
                parameter.grad = earlier if parameter.grad is None else earlier + parameter.grad
        return dict(zip(metrics, found[len(changed) :], strict=True))


def averaged(inner: Gradients = eagerly) -> Gradients:
    """`Averaged` where there are several processes and batch norms are local, else `inner`."""
    alone = distributed.size() == 1 or distributed.sync_batch_norm
    return inner if alone else Averaged(inner)


def without_graphs(gradients: Gradients) -> tuple[Gradients, bool]:
    """The same passes computed eagerly, and whether they were captured before."""
    if isinstance(gradients, Averaged):
        return Averaged(eagerly), gradients.inner is not eagerly
    return eagerly, gradients is not eagerly
