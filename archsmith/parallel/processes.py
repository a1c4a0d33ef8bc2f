"""One process of several: process groups, store, heartbeat and the exchange of values."""

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from archsmith.errors import ConfigError, ProcessLost, is_out_of_memory
from archsmith.parallel.heartbeat import BEAT, SPACE, Heartbeat

MEETING = 120.0  # seconds within which all processes must start
Value = TypeVar("Value")


class Processes:
    """The implementation of `archsmith.parallel.distributed` for several processes.

    Args:
        gone: called with a reason if another process failed or is lost; ends this one.

    Raises:
        ConfigError: the processes cannot connect.
    """

    def __init__(self, rank: int, size: int, gone: Callable[[str], None]):
        self.rank, self.size = rank, size
        patience = timedelta(seconds=MEETING)
        try:
            store, _, _ = next(iter(dist.rendezvous("env://", timeout=patience)))
            self.store = dist.PrefixStore(SPACE, store)
            Heartbeat.first(self.store, rank)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
            control = dist.new_group(backend="gloo")
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"torchrun: process {rank} of {size} did not find the others within {MEETING:.0f} "
                f"s ({_short(error)}); check --nnodes, --rdzv-endpoint and the network between them"
            ) from error
        assert isinstance(control, dist.ProcessGroup)
        self.control = control  # group for values and flags, on the CPU
        self.ending = threading.Lock()
        self.heartbeat = Heartbeat(rank, size, gone, ProcessLost.exit_code)
        self.scratch = Path(tempfile.mkdtemp(prefix="archsmith-")) if rank else None

    def part(self) -> None:
        """Stops the heartbeat and leaves the process group."""
        self.heartbeat.stop()
        dist.destroy_process_group()

    def leave(self) -> None:
        """Called before a failed process exits: gives the others time to read the reason."""
        if self.scratch is None:
            time.sleep(1.5 * BEAT)  # rank 0 may host the store, which dies with it
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def all_reduce(self, tensor: Tensor) -> None:
        with self._meeting():
            dist.all_reduce(tensor)

    def from_first(self, value: Value) -> Value:
        box = [value]
        with self._meeting():
            dist.broadcast_object_list(box, 0, self.control, torch.device("cpu"))
        return box[0]

    def from_all(self, value: Value) -> list[Value]:
        found: list[Any] = [None] * self.size
        with self._meeting():
            dist.all_gather_object(found, value, group=self.control)
        return found

    def lost(self, reason: str) -> ProcessLost:
        """The error to raise, or to print, if another process is gone."""
        return ProcessLost(
            f"process {self.rank} of {self.size}: another one was lost ({reason}); what was saved "
            "is kept, run the same command again"
        )

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise self.lost(_short(error)) from error


def _short(error: BaseException) -> str:
    """The first sentence of an error, without the location in torch's sources."""
    text = re.sub(r"^\[[^]]*\] *", "", " ".join(str(error).split()))
    return text.partition(". ")[0][:160] or type(error).__name__
