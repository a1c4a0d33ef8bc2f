"""The NAS-Bench-201 cell space: `op(c_in, c_out, stride, *, affine, search)`.

Source: Dong & Yang 2020, arXiv:2001.00326, section 2; shapes, order and biases of the public code,
where a convolution has a bias exactly when the batch norm behind it has no affine parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

from torch import Tensor, nn

from search_spaces.ops import FactorizedReduce, ReLUConvBN, Zero
from search_spaces.settings import Count, Range, checked
from search_spaces.space import (
    MOST_LAYERS,
    Cell,
    Channels,
    Layer,
    Nodes,
    Space,
    complete_edges,
    known_operations,
)


def zero(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    """No connection."""
    return Zero(c_in, c_out, stride)


def skip_connect(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    """Identity; at stride 2 a factorised reduction; 1x1 convolution where only channels change."""
    if stride == 2:
        return FactorizedReduce(c_in, c_out, affine=affine, bias=not affine)
    if c_in == c_out:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 1, bias=not affine), nn.BatchNorm2d(c_out, affine=affine)
    )


def nor_conv(
    c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, kernel_size: int
) -> nn.Module:
    """ReLU, convolution, batch norm."""
    return ReLUConvBN(c_in, c_out, stride, affine=affine, kernel_size=kernel_size, bias=not affine)


class AvgPool(nn.Module):
    """3x3 average pooling; a 1x1 ReLU-Conv-BN before it where the channels change."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool):
        super().__init__()
        self.project = (
            nn.Identity()
            if c_in == c_out
            else ReLUConvBN(c_in, c_out, 1, affine=affine, bias=not affine)
        )
        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.project(x))


CANDIDATES: dict[str, Callable[..., nn.Module]] = {
    "none": zero,
    "skip_connect": skip_connect,
    "nor_conv_1x1": partial(nor_conv, kernel_size=1),
    "nor_conv_3x3": partial(nor_conv, kernel_size=3),
    "avg_pool_3x3": AvgPool,
}


@checked
def nasbench201(
    *,
    layers: Annotated[int, Range(ge=5, le=MOST_LAYERS)],
    nodes: Nodes,
    channels: Channels,
    candidates: Sequence[str | Sequence[str]],
    input_shape: Sequence[int],
    classes: Count,
    operations: Mapping[str, Callable[..., nn.Module]] | None = None,
) -> Space:
    """The NAS-Bench-201 space: three stages of N equal cells, a residual block of stride 2 between
    them.

    Args:
        layers: 3N + 2, the two residual blocks included (the benchmark: N = 5, 17 layers).
        nodes: computed nodes of the cell (the benchmark: 3, hence 6 edges).

    Raises:
        ValueError: a size that is not a positive whole number or not 3N + 2, an unknown candidate.
    """
    if layers % 3 != 2:
        raise ValueError(
            f"layers: {layers} is not 3N + 2 (three stages of N cells and two residual "
            "blocks); "
            f"set it to {layers // 3 * 3 + 2} or {layers // 3 * 3 + 5}"
        )
    cell = Cell(1, nodes, complete_edges(1, nodes, candidates), keep=None, output="last")
    cells_per_stage = (layers - 2) // 3
    places: list[Layer] = []
    for stage in range(3):
        width = channels * 2**stage
        if stage:
            places.append(Layer(None, None, width, reduction=True))
        places += [Layer("cell", "cell", width, reduction=False)] * cells_per_stage
    return Space(
        name="nasbench201",
        family=nasbench201,
        settings=dict(
            layers=layers,
            nodes=nodes,
            channels=channels,
            candidates=candidates,
            input_shape=tuple(input_shape),
            classes=classes,
        ),
        cells={"cell": cell},
        layers=tuple(places),
        operations=known_operations(CANDIDATES, operations or {}, cell.edges),
        input_shape=(input_shape[0], input_shape[1], input_shape[2]),
        classes=classes,
        stem="plain",
        stem_channels=channels,
        preprocess=False,
        head="bn_relu_pool_linear",
        extra_operations=operations or {},
    )
