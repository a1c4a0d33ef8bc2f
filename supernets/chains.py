"""Candidates as chains of elementary layers, which is what the fast forms can run together."""

from collections.abc import Callable

from torch import nn

from search_spaces.ops import (
    AvgPool,
    FactorizedReduce,
    Pool,
    ReLUConvBN,
    ResizablePool,
    SepConv,
    SharpSepConv,
    Skip,
    Zero,
)

Chain = list[nn.Module]

# An elementary layer, and what must hold for it to be run beside its like.
LAYERS: dict[type, Callable[..., bool]] = {
    nn.ReLU: lambda layer: not layer.inplace,
    nn.Conv2d: lambda layer: layer.padding_mode == "zeros" and layer.padding != "same",
    nn.BatchNorm2d: lambda layer: layer.running_mean is not None,
    nn.MaxPool2d: lambda layer: not layer.return_indices,
    nn.AvgPool2d: lambda layer: True,
    FactorizedReduce: lambda layer: True,
}
# What passes a map through its children, in their order.
IN_ORDER = frozenset(
    {
        *(nn.Identity, nn.Sequential, ReLUConvBN, Pool, SepConv, AvgPool, Skip),
        *(ResizablePool, SharpSepConv),
    }
)


def chain_of(op: nn.Module) -> Chain | None:
    """The layers of a candidate in order, None where there is one that only it can run.

    Types are compared exactly: a subclass may do anything. A factorised reduction is one layer, and
    known at the start of a chain only. `Zero` has no chain; it adds nothing.
    """
    if type(op) in LAYERS:
        return [op] if LAYERS[type(op)](op) else None
    if type(op) not in IN_ORDER:
        return None
    layers: Chain = []
    for part in op if isinstance(op, nn.Sequential) else op.children():
        inner = chain_of(part)
        if inner is None or (layers and any(type(m) is FactorizedReduce for m in inner)):
            return None
        layers += inner
    return layers


def adds_nothing(op: nn.Module) -> bool:
    return type(op) is Zero
