"""Several processes for one run: their rank, the values they exchange, and a common shutdown.

`torchrun` (or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT)
starts the same command in each. All compute the same steps (`archsmith.parallel.data_parallel`);
only rank 0 prints and keeps its files, the others write into a temporary folder. Without such a
launcher, or with one process, the functions here are trivial and do not import torch.
"""

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from archsmith.differences import differing_keys
from archsmith.errors import ConfigError, ProcessLost, is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from archsmith.parallel.processes import Processes

Value = TypeVar("Value")
sync_batch_norm = False  # whether batch norms use the images of all processes
_run: "Processes | None" = None
_scratch: Path | None = None  # the run directory of a process that is not rank 0
_ending = threading.Lock()  # held by the one thread that ends this process


def rank() -> int:
    return _run.rank if _run else 0


def size() -> int:
    return _run.size if _run else 1


def first() -> bool:
    """Whether this process is rank 0, which prints and writes."""
    return rank() == 0


def start() -> None:
    """Joins the other processes, if there are any; only rank 0 keeps its output.

    Raises ConfigError if they cannot connect.
    """
    global _run, _scratch
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count < 2 or "RANK" not in os.environ:
        return
    from archsmith.parallel.processes import Processes

    _run = Processes(int(os.environ["RANK"]), count, _end_without)
    if not first():
        _scratch = Path(tempfile.mkdtemp(prefix="archsmith-"))
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until exit
        sys.argv += [f"hydra.run.dir={_scratch}"]


def finish() -> bool:
    """Waits for all processes and disconnects them; returns whether this one (rank 0) continues."""
    global _run
    goes_on = first()
    if _run is not None:
        from_first(None)
        _run.part()
        _run = None
        _clean()
    return goes_on


def _clean() -> None:
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)


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
    failure = _run.failure(code)
    _ending.acquire()  # only one thread ends this process; others block here
    if failure["rank"] != _run.rank:
        time.sleep(1)  # let it report: torchrun kills it once this one exits
        return failure["code"]
    sys.stderr = sys.__stderr__
    return None


def _end_without(reason: str) -> None:
    """Ends this process because another is lost, even if it is blocked."""
    code = failing(ProcessLost.exit_code)
    if code is None:
        print(f"archsmith: {_lost(reason)}", file=sys.__stderr__)
    end(ProcessLost.exit_code if code is None else code)


def end(code: int) -> NoReturn:
    """Ends this process; one of several exits at once, as cleanup could block on a lost process."""
    if _run is None:
        sys.exit(code)
    if first():
        time.sleep(3)  # rank 0 may host the store, which dies with it: the others read the reason
    _clean()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


def _lost(reason: str) -> ProcessLost:
    return ProcessLost(
        f"process {rank()} of {size()}: another one was lost ({reason}); what was saved is kept, "
        "run the same command again"
    )


# -- exchanged values
# ------------------------------------------------------------------------------------------------


@contextmanager
def _meeting() -> Iterator[Any]:
    """Passes in `torch.distributed`. Raises ProcessLost where it fails."""
    import torch.distributed

    from archsmith.parallel.processes import short

    try:
        yield torch.distributed
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise _lost(short(error)) from error


def all_reduce(tensor: "Tensor") -> None:
    """Sums over the processes, in place; bit-identical on each. Raises ProcessLost."""
    if _run is not None:
        with _meeting() as dist:
            dist.all_reduce(tensor)


def from_first(value: Value) -> Value:
    """The value of rank 0, on all processes. Raises ProcessLost."""
    box = [value]
    if _run is not None:
        with _meeting() as dist:
            dist.broadcast_object_list(box, 0, _run.control, device="cpu")
    return box[0]


def from_all(value: Value) -> list[Value]:
    """The values of all processes, on all. Raises ProcessLost."""
    found = [value] * size()
    if _run is not None:
        with _meeting() as dist:
            dist.all_gather_object(found, value, group=_run.control)
    return found


def any_process(flag: bool) -> bool:
    """Whether the flag is true on any process. Raises ProcessLost."""
    if _run is None:
        return flag
    import torch

    count = torch.tensor(int(flag))
    with _meeting() as dist:
        dist.all_reduce(count, group=_run.control)
    return bool(count)


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
        batch_size, least = settings[name]["batch_size"], size() * (1 if sync_batch_norm else 2)
        if batch_size < least:
            raise ConfigError(
                f"{name}.batch_size: {batch_size} images for {size()} processes; it is the batch "
                f"of all of them together, set it to {least} or more"
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


def _mirror(folder: Path) -> None:
    """Copies the records of finished phases and epochs in rank 0's run directory, and a teacher, to
    the others."""
    kept = [
        p
        for pattern in ("*.json*", "pareto/*.json", "architectures/*.json", "teacher.safetensors")
        for p in folder.glob(pattern)
    ]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in kept} if first() else {}
    for name, content in from_first(files).items():
        if not first():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
