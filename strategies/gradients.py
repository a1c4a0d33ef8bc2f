"""How an update asks for a pass and its gradients: by a function that fills them."""

from collections.abc import Callable, Sequence

from torch import Tensor

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels (B,)
Metrics = dict[str, Tensor]  # 0-dim
Compute = Callable[..., Metrics]  # of batches; fills `.grad` of what is wanted
# the pass's name, how it is computed, of which batches, and what gradients are wanted of
Gradients = Callable[[str, Compute, Sequence[Batch], Sequence[Tensor]], Metrics]


def eagerly(
    name: str, compute: Compute, batches: Sequence[Batch], wanted: Sequence[Tensor]
) -> Metrics:
    """Computes a pass, operation by operation."""
    return compute(*batches)
