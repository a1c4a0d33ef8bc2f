"""Several processes for one run: their rank, the values they exchange, and a common shutdown.

`torchrun` (or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT)
starts the same command in each. All compute the same steps (`archsmith.parallel.data_parallel`);
only rank 0 prints and keeps its files, the others write into a temporary folder. Without such a
launcher, or with one process, the functions here are trivial and do not import torch.
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
    """Whether this process is rank 0, which prints and writes."""
    return rank() == 0


_run: "Processes | None" = None


def start() -> None:
    """Joins the other processes, if there are any; only rank 0 keeps its output.

    Raises ConfigError if they cannot connect.
    """
    global _run
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count < 2 or "RANK" not in os.environ:
        return
    from archsmith.parallel.processes import Processes

    _run = Processes(int(os.environ["RANK"]), count, _end_without)
    if _run.rank:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until exit
        sys.argv += [f"hydra.run.dir={_run.scratch}"]


def finish() -> bool:
    """Waits for all processes and disconnects them; returns whether this one (rank 0) continues."""
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


# -- failures
# ------------------------------------------------------------------------------------------------


def failing(code: int) -> int | None:
    """Records this failure as that of the whole run and reopens stderr, so that this process
    reports it.

    If another process failed first, returns the exit code of that failure instead: this one is a
    consequence of it, or the same, and is not reported.
    """
    if _run is None:
        return None
    known = _run.heartbeat.failure or {"code": code, "rank": _run.rank}
    if _run.heartbeat.failure is None:
        with suppress(RuntimeError):  # the store may be unreachable, too
            known = json.loads(_run.store.compare_set("failed", "", json.dumps(known)))
    _run.ending.acquire()  # only one thread ends this process; others block here
    if known["rank"] != _run.rank:
        time.sleep(1)  # let it report: torchrun kills it once this one exits
        return known["code"]
    sys.stderr = sys.__stderr__
    return None


def _end_without(reason: str) -> None:
    """Ends this process because another failed or is lost, even if it is blocked."""
    code = failing(LOST)
    if code is None:
        print(f"archsmith: {_run.lost(reason) if _run else reason}", file=sys.__stderr__)
    end(LOST if code is None else code)


def end(code: int) -> NoReturn:
    """Ends this process; one of several exits at once, as cleanup could block on a lost process."""
    if _run is None:
        sys.exit(code)
    _run.leave()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


# -- exchanged values
# ------------------------------------------------------------------------------------------------


def all_reduce(tensor: "Tensor") -> None:
    """Sums over the processes, in place; bit-identical on each. Raises ProcessLost."""
    if _run is not None:
        _run.all_reduce(tensor)


def from_first(value: Value) -> Value:
    """The value of rank 0, on all processes. Raises ProcessLost."""
    return value if _run is None else _run.from_first(value)


def from_all(value: Value) -> list[Value]:
    """The values of all processes, on all. Raises ProcessLost."""
    return [value] if _run is None else _run.from_all(value)


def any_process(flag: bool) -> bool:
    """Whether the flag is true on any process. Raises ProcessLost."""
    return flag if _run is None else any(from_all(flag))


def join(folder: Path, settings: Mapping[str, Any], together: Iterable[str]) -> None:
    """Checks that all processes have the same settings, and copies rank 0's finished work to the
    others.

    `folder` is the process's run directory, `settings` what must be equal; `together` names the
    settings groups of the phases whose batches are split over the processes.

    Raises:
        ConfigError: settings or data differ between processes, or a batch is too small to split.
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
    """The setting `device` for this process: one GPU per process. Raises ConfigError."""
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
    """Copies the records of finished phases and epochs in rank 0's run directory to the others."""
    kept = [p for pattern in ("*.json*", "pareto/*.json") for p in folder.glob(pattern)]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in kept} if first() else {}
    for name, content in from_first(files).items():
        if not first():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
