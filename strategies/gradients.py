"""The function by which an update computes a pass and its gradients."""

from collections.abc import Callable, Sequence

from torch import Tensor

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels (B,)
Metrics = dict[str, Tensor]  # 0-dim
Compute = Callable[..., Metrics]  # batches -> metrics; fills `.grad`
# (name of the pass, its computation, its batches, tensors whose gradients are wanted) -> metrics
Gradients = Callable[[str, Compute, Sequence[Batch], Sequence[Tensor]], Metrics]


def eagerly(
    name: str, compute: Compute, batches: Sequence[Batch], wanted: Sequence[Tensor]
) -> Metrics:
    """Computes a pass eagerly."""
    return compute(*batches)
