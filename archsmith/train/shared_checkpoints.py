"""Checkpoints with several processes: rank 0 reads and writes, all have the same state."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from archsmith.parallel.distributed import first, from_all, from_first
from archsmith.train.checkpoint import Checkpoints


class SharedCheckpoints(Checkpoints):
    """Checkpoints that rank 0 reads and writes for all processes.

    The state does not depend on the number of processes, so any number can resume it.
    """

    def due(self, *, epoch_over: bool = False) -> bool:
        return from_first(super().due(epoch_over=epoch_over))

    def save(self, state: Mapping[str, Any]) -> None:
        """Returns once the file is written. Raises RuntimeError if the states differ."""
        if len(set(from_all(_digest(state)))) > 1:
            raise RuntimeError("the processes are out of step: their states differ; not saved")
        if first():
            super().save(state)
        from_first(None)

    def load(self) -> dict[str, Any] | None:
        packed = io.BytesIO()
        if first():
            torch.save(super().load(), packed)
        packed = io.BytesIO(from_first(packed.getvalue()))
        return torch.load(packed, map_location="cpu", weights_only=True)


def _digest(state: Any) -> str:
    """sha256 over all tensors."""
    digest = hashlib.sha256()
    for tensor in _tensors(state):
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(state: Any) -> Iterator[Tensor]:
    """All tensors in nested mappings and lists, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)
