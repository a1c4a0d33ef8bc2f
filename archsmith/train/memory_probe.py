"""Checks before a long run whether a step fits into memory.

One step on two images and one on three are traced operation by operation: the live memory after
each is linear in the number of images, and the maximum of these lines at the batch size is the
peak.
"""

import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from archsmith.errors import OutOfMemory
from archsmith.train.available import Memory, memory_of
from archsmith.train.random_state import random_state, set_random_state
from supernets.network import Network

log = logging.getLogger(__name__)

PROBED_STEPS = 500  # from this length on a run is probed, which takes about half a step
Need = Callable[[float], int]  # batch size -> bytes at the peak of a step


class Living(TorchDispatchMode):
    """Bytes of live tensors that were created in this mode: `after` each operation, and `now`.

    Temporary memory inside a single operation is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.after: list[int] = []
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if all(one.alias_info is None for one in func._schema.returns):
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor):
                    self._add(tensor.untyped_storage())
        self.after.append(self.now)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def images_for(net: Network, count: int) -> tuple[Tensor, Tensor]:
    """`count` random images (B, C, H, W) and labels (B,), of text (B, T), on the network's
    device."""
    device, space = next(net.parameters()).device, net.space
    if space.reads_text:
        ids = torch.randint(space.classes, (count, *space.input_shape), device=device)
        return ids.float(), ids.flatten(1)
    x = torch.randn(count, *net.space.input_shape, device=device)
    return x, torch.randint(net.space.classes, (count,), device=device)


def step_memory(prepared: Callable[[int], Callable[[], object]], parts: int) -> Need:
    """Peak bytes of a step, in addition to what the process holds, as a function of the batch size.

    The random generators are restored.

    Args:
        prepared: batch size -> a step that works on copies of everything it changes.
        parts: the number of micro-batches of a step.
    """
    sizes, seen = (2 * parts, 3 * parts), []
    before = random_state()
    try:
        for size in sizes:
            set_random_state(before)
            step = prepared(size)
            with Living() as living:
                step()
            # what the first step leaves (gradients, moments) stays allocated in the next
            seen.append(torch.tensor(living.after, dtype=torch.double) + living.now)
    finally:
        set_random_state(before)
    few, more = seen if len(seen[0]) == len(seen[1]) else [one.max() for one in seen]

    def need(images: float) -> int:
        return int((few + (more - few) * ((images - sizes[0]) / parts)).max())

    return need


def check_memory(
    phase: str, need: Need, batch: int, parts: int, device: torch.device, *, otherwise: str
) -> None:
    """Warns if a step will not fit into free memory, and suggests settings that would.

    Args:
        otherwise: other ways to save memory, in words.

    Raises:
        OutOfMemory: even two images per micro-batch exceed the total memory.
    """
    peak, memory = need(batch), memory_of(device)
    log.info("%s: a step takes about %s, %s", phase, _gb(peak), _said(memory))
    if peak <= memory.free:
        return
    if need(2 * parts) > memory.total:
        raise OutOfMemory(
            f"{phase}: a step takes about {_gb(peak)}, with the smallest batch "
            f"{_gb(need(2 * parts))}, {_said(memory)}; set {otherwise}"
        )
    factor = 2
    while need(batch / factor) > memory.free and batch // (2 * factor) >= 2 * parts:
        factor *= 2
    log.warning(
        "%s: a step takes about %s, %s: it may run out of memory; set %s.micro_batches=%d or "
        "%s.batch_size=%d (about %s), or %s",
        phase, _gb(peak), _said(memory), phase, parts * factor,
        phase, batch // factor, _gb(need(batch / factor)), otherwise,
    )  # fmt: skip


def _said(memory: Memory) -> str:
    return f"and {_gb(memory.free)} of {_gb(memory.total)} are free"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
