"""Watches which layout of maps torch's convolutions get on the CPU."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CONVOLUTION = torch.ops.aten.convolution.default
BACKWARD = torch.ops.aten.convolution_backward.default


def taken_for_channels_last(x: Tensor) -> bool:
    """Whether torch takes x (B, C, H, W) for channels last: `suggest_memory_format` of ATen."""
    sizes, strides, least = x.shape, x.stride(), 0
    if strides[1] == 0:
        return False
    for d in (1, 3, 2, 0):
        if sizes[d] == 0 or strides[d] < least or (d == 0 and least == strides[1]):
            return False
        least = strides[d] * max(sizes[d], 1)
    return True


class Convolutions(TorchDispatchMode):
    """Collects the convolutions whose kernel torch chooses for channels last, by what it is given.

    torch looks at maps and weights alone: it copies a gradient to the layout of these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.last = 0, set[str]()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op in (CONVOLUTION, BACKWARD):
            x, weight = args[:2] if op is CONVOLUTION else args[1:3]
            if x.device.type == "cpu" and x.dim() == 4:
                self.seen += 1
                if taken_for_channels_last(x) or taken_for_channels_last(weight):
                    shapes = f"{tuple(x.shape)} {x.stride()}, {tuple(weight.shape)}"
                    self.last.add(f"{op} of {shapes} {weight.stride()}")
        return op(*args, **kwargs or {})
