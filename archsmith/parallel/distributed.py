"""Several processes that do one run: who is first, what they agree on, and how they end together.

`torchrun` (or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT)
starts the same command in each. All compute the same steps (`archsmith.parallel.data_parallel`);
only the first speaks and keeps what it writes, the others write into a folder that they throw away.
Without such a launcher, or with one process, every function here is what it is for one process,
and torch is not imported for it.
"""

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from archsmith.differences import differing_keys
from archsmith.errors import ConfigError, ProcessLost

if TYPE_CHECKING:
    from torch import Tensor

    from archsmith.parallel.processes import Processes

LOST = ProcessLost.exit_code

log = logging.getLogger(__name__)
Value = TypeVar("Value")


def rank() -> int:
    return _run.rank if _run else 0


def size() -> int:
    return _run.size if _run else 1


def first() -> bool:
    """Whether this process is the one that speaks and writes."""
    return rank() == 0


_run: "Processes | None" = None


def start() -> None:
    """Joins the other processes, if there are any; all but the first fall silent.

    Raises ConfigError where they do not find each other.
    """
    global _run
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count < 2 or "RANK" not in os.environ:
        return
    from archsmith.parallel.processes import Processes

    _run = Processes(int(os.environ["RANK"]), count, _end_without)
    if _run.rank:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - to the end
        sys.argv += [f"hydra.run.dir={_run.scratch}"]


def finish() -> bool:
    """Parts the processes for good, once all are here; says whether this one goes on."""
    global _run
    if _run is None:
        return True
    goes_on, scratch = first(), _run.scratch
    from_first(None)
    _run.part()
    _run = None
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    return goes_on


# -- how they fail
# ------------------------------------------------------------------------------------------------


def failing(code: int) -> int | None:
    """Makes this failure that of all processes, and lets this one speak of it.

    Returns the code of another's failure where that came before: this one follows from it, or is
    the same, and nothing is to be said.
    """
    if _run is None:
        return None
    known = _run.heartbeat.failure or {"code": code, "rank": _run.rank}
    if _run.heartbeat.failure is None:
        with suppress(RuntimeError):  # the store may be lost, too
            known = json.loads(_run.store.compare_set("failed", "", json.dumps(known)))
    _run.ending.acquire()  # by the thread that ends this process; another waits for that
    if known["rank"] != _run.rank:
        time.sleep(1)  # it speaks; torchrun ends it as soon as this one has ended
        return known["code"]
    sys.stderr = sys.__stderr__
    return None


def _end_without(reason: str) -> None:
    """Ends this process where another failed or is lost, whatever it waits for."""
    code = failing(LOST)
    if code is None:
        print(f"archsmith: {_run.lost(reason) if _run else reason}", file=sys.__stderr__)
    end(LOST if code is None else code)


def end(code: int) -> NoReturn:
    """Ends this process; among several at once: what waits for a lost one would hold it up."""
    if _run is None:
        sys.exit(code)
    _run.leave()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


# -- what they agree on
# ------------------------------------------------------------------------------------------------


def all_reduce(tensor: "Tensor") -> None:
    """Sums over the processes, in place; bit for bit the same on each. Raises ProcessLost."""
    if _run is not None:
        _run.all_reduce(tensor)


def from_first(value: Value) -> Value:
    """The first process's value, on all. Raises ProcessLost."""
    return value if _run is None else _run.from_first(value)


def from_all(value: Value) -> list[Value]:
    """Every process's value, on all. Raises ProcessLost."""
    return [value] if _run is None else _run.from_all(value)


def any_process(flag: bool) -> bool:
    """Whether it is true on any process. Raises ProcessLost."""
    return flag if _run is None else any(from_all(flag))


def join(folder: Path, settings: Mapping[str, Any], together: Iterable[str]) -> None:
    """Makes sure that all do the same, and gives the others what the first has done before.

    `folder` is each one's run directory, `settings` what must be equal; `together` names the
    settings of the phases whose batches they share.

    Raises:
        ConfigError: other settings or data on another process, or batches too small to share.
    """
    if _run is None:
        return
    for name in together:
        batch_size = settings[name]["batch_size"]
        if batch_size < size():
            raise ConfigError(
                f"{name}.batch_size: {batch_size} images for {size()} processes; it is the batch "
                f"of all of them together, set it to {size()} or more"
            )
    everyone = from_all(settings)
    for other, found in enumerate(everyone):
        keys = differing_keys(everyone[0], found)
        if keys:
            raise ConfigError(
                f"torchrun: process {other} differs from process 0 in {', '.join(keys[:8])}; start "
                "the same command with the same files on every machine"
            )
    _mirror(folder)


def local_device(name: str) -> str:
    """The setting `device` for this process: each has a GPU of its own. Raises ConfigError."""
    if size() == 1 or name == "cpu":
        return name
    import torch

    if not torch.cuda.is_available():
        return name
    if name not in ("auto", "cuda"):
        raise ConfigError(f"device: '{name}' for {size()} processes; set device=cuda or device=cpu")
    here, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if here >= gpus:
        raise ConfigError(
            f"device: process {here + 1} of this machine finds {gpus} GPUs, and each needs its "
            f"own; set --nproc-per-node={gpus}, or device=cpu"
        )
    return f"cuda:{here}"


def _mirror(folder: Path) -> None:
    """Gives the others what the first one's run directory says of finished phases and epochs."""
    kept = [p for pattern in ("*.json*", "pareto/*.json") for p in folder.glob(pattern)]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in kept} if first() else {}
    for name, content in from_first(files).items():
        if not first():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
