"""Heartbeats between processes, so that none waits long for one that is gone."""

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

BEAT = 2.0  # seconds between two heartbeats
SILENCE = 10  # checks without a new beat until a process counts as lost
PATIENCE = 5  # beats a process has to end by itself after another failed
SPACE = "archsmith"  # prefix of our keys in the store


class Heartbeat:
    """Tells the others, through the shared store, that this process is alive.

    Two threads: one exchanges beats and may block forever if the store is gone; the other checks
    for new beats and calls `gone` with the reason if there are none. It counts checks and not
    seconds, so that a suspended machine misses none.

    Args:
        gone: called with a reason; ends this process with exit code `code` or that of a known
            failure.
    """

    def __init__(self, rank: int, size: int, gone: Callable[[str], None], code: int):
        self.rank, self.size, self.gone, self.code = rank, size, gone, code
        self.failure: dict[str, int] | None = None  # code and rank of the process that failed first
        self._beats_since = 0
        self._heard: list[Any] = [b""] * (size + 1)  # last beats of all processes, and of the store
        self._over = threading.Event()
        for work in (self._exchange, self._look):
            threading.Thread(target=work, daemon=True).start()

    @staticmethod
    def first(store: dist.Store, rank: int) -> None:
        """Called before the processes connect, so that each finds the beats of all."""
        store.set(f"beat{rank}", "0")

    def stop(self) -> None:
        self._over.set()

    def _exchange(self) -> None:
        names, beat = [f"beat{other}" for other in range(self.size)], 0
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:  # a separate connection: the other one belongs to the main thread
            own = dist.TCPStore(host, port, is_master=False, wait_for_workers=False)
            store = dist.PrefixStore(SPACE, own)
            while not self._over.wait(BEAT):
                beat += 1
                store.set(names[self.rank], str(beat))
                self._heard = [*store.multi_get(names), beat]
                if self.failure is not None:
                    self._beats_since += 1
                elif store.check(["failed"]):
                    self.failure = json.loads(store.get("failed"))
        except RuntimeError:
            pass  # no more beats arrive, which `_look` notices

    def _look(self) -> None:
        before, silent = self._heard, [0] * (self.size + 1)
        while not self._over.wait(BEAT):
            same = [a == b for a, b in zip(before, self._heard, strict=True)]
            before, silent = self._heard, [(n + 1) * s for n, s in zip(silent, same, strict=True)]
            reason = None
            if silent[-1] >= SILENCE:
                reason = "the store that joins them does not answer"
                # set here, so that `failing` does not ask the store
                self.failure = self.failure or {"code": self.code, "rank": self.rank}
            elif self._beats_since > PATIENCE:
                reason = "it failed"
            elif max(silent) >= SILENCE:
                reason = f"process {silent.index(max(silent))} gives no sign of life"
            if reason is not None and not self._over.is_set():
                self.gone(reason)
