"""One process of several: how it joins the others, and the heartbeat by which it misses them.

torchrun ends a run whose process was killed, but never notices one that hangs.
"""

import json
import os
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from archsmith.errors import ConfigError, ProcessLost

MEETING = 120.0  # seconds within which all processes must start
BEAT = 2.0  # seconds between two heartbeats
SILENCE = 10  # checks without a new beat until a process counts as lost
SPACE = "archsmith"  # prefix of our keys in the store


class Processes:
    """The connection to the other processes, over the store that they share.

    Two threads: one exchanges beats and may block forever if the store is gone; the other checks
    for new beats and calls `gone` with the reason if there are none. It counts checks and not
    seconds, so that a suspended machine misses none.

    Args:
        gone: called with a reason if another process is lost or the store is; ends this process.

    Raises:
        ConfigError: the processes cannot connect.
    """

    def __init__(self, rank: int, size: int, gone: Callable[[str], None]):
        self.rank, self.size, self._gone = rank, size, gone
        self._failure: dict[str, int] | None = None  # code and rank of the one that failed first
        self._names = [f"beat{other}" for other in range(size)]
        try:
            store, _, _ = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=MEETING))))
            self._store = dist.PrefixStore(SPACE, store)
            self._store.set(self._names[rank], "0")  # before they connect: each finds those of all
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
            # for values and flags, on the CPU
            self.control: Any = dist.new_group(backend="gloo")
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"torchrun: process {rank} of {size} did not find the others within {MEETING:.0f} "
                f"s ({short(error)}); check --nnodes, --rdzv-endpoint and the network between them"
            ) from error
        self._heard: list[Any] = [b""] * (size + 1)  # last beats of all processes, and of the store
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._exchange, self._look)
        ]
        for thread in self._threads:
            thread.start()

    def part(self) -> None:
        """Stops the heartbeat and leaves the process group.

        The threads end first, and this one drops the groups: a daemon thread that drops the last
        reference to a group while Python shuts down aborts the process (torch 2.15).
        """
        self._over.set()
        for thread in self._threads:
            thread.join(BEAT)  # a store that is gone blocks the exchange for ever
        dist.destroy_process_group()
        self.control = None

    def failure(self, code: int) -> dict[str, int]:
        """Exit code and rank of the process that failed first; this one, if none did before."""
        if self._failure is not None:
            return self._failure
        own = {"code": code, "rank": self.rank}
        try:
            return json.loads(self._store.compare_set("failed", "", json.dumps(own)))
        except RuntimeError:  # the store is unreachable, too
            return own

    def _exchange(self) -> None:
        host, port, beat = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), 0
        try:  # a separate connection: the other one belongs to the main thread
            own = dist.TCPStore(host, port, is_master=False, wait_for_workers=False)
            store = dist.PrefixStore(SPACE, own)
            while not self._over.wait(BEAT):
                beat += 1
                store.set(self._names[self.rank], str(beat))
                self._heard = [*store.multi_get(self._names), beat]
                if self._failure is None and store.check(["failed"]):
                    self._failure = json.loads(store.get("failed"))
        except RuntimeError:
            pass  # no more beats arrive, which `_look` notices

    def _look(self) -> None:
        before, silent = self._heard, [0] * (self.size + 1)
        while not self._over.wait(BEAT):
            same = [a == b for a, b in zip(before, self._heard, strict=True)]
            before, silent = self._heard, [(n + 1) * s for n, s in zip(silent, same, strict=True)]
            if max(silent) < SILENCE or self._over.is_set():
                continue
            reason = f"process {silent.index(max(silent))} gives no sign of life"
            if silent[-1] >= SILENCE:
                reason = "the store that joins them does not answer"
                own = {"code": ProcessLost.exit_code, "rank": self.rank}
                self._failure = self._failure or own  # so that `failure` does not ask the store
            self._gone(reason)


def short(error: BaseException) -> str:
    """The first sentence of an error, without the location in torch's sources."""
    text = re.sub(r"^\[[^]]*\] *", "", " ".join(str(error).split()))
    return text.partition(". ")[0][:160] or type(error).__name__
