"""A stand-in for CUDA graphs on the CPU: operations are recorded with the very tensors they read
and wrote, and a replay computes them again into those.

As in a CUDA graph, what Python computed between two operations is not computed again: a number is
what it was, a tensor is the one it was. So what a graph would miss, a replay misses.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# The second in inference mode, which does not decompose it.
READS = torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default
NEW = torch.ops.aten.lift_fresh.default  # `torch.tensor`: of Python numbers, copied to the device


def storages(values: Any) -> set[int]:
    found = (v.untyped_storage().data_ptr() for v in tree_leaves(values) if isinstance(v, Tensor))
    return set(found)


class Recorder(TorchDispatchMode):
    """Records every operation below autograd; `replay` computes them again, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in READS:
            raise RuntimeError("a graph cannot read a tensor on the host")
        if func is NEW:
            raise RuntimeError("a graph cannot copy numbers from the host")
        result = func(*args, **kwargs)
        read = storages((args, kwargs))
        made = [v for v in tree_leaves(result) if isinstance(v, Tensor)]
        new = [v for v in made if v.untyped_storage().data_ptr() not in read]
        self.operations.append((func, args, kwargs, new))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, new in self.operations:
            read = storages((args, kwargs))
            again = [v for v in tree_leaves(func(*args, **kwargs)) if isinstance(v, Tensor)]
            fresh = [v for v in again if v.untyped_storage().data_ptr() not in read]
            for before, now in zip(new, fresh, strict=True):
                before.copy_(now)


def recorded(compute: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    """As `archsmith.train.replay.Capture` asks for."""
    with Recorder() as recorder:
        result = compute()
    return result, recorder.replay
