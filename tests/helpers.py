"""Helpers shared by the tests of several packages."""

from pathlib import Path
from typing import Any

from archsmith.search.loop import Search
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.epochs import run
from archsmith.train.record import Record

ROOT = Path(__file__).resolve().parents[1]
RUN = str(ROOT / "run.py")


def search(
    net: Any,
    strategy: Any,
    roles: Any,
    settings: Any,
    *,
    record: Record,
    checkpoints: Checkpoints,
    meta: dict[str, Any] | None = None,
    epochs: float | None = None,
    **more: Any,
) -> Any:
    """A gradient search to its end."""
    task = Search(net, strategy, roles, settings, record=record, meta=meta or {}, epochs=epochs)
    return run(task, record, checkpoints, **more)
