"""Recovery from out-of-memory: resume from the last checkpoint with more micro-batches."""

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from archsmith.errors import OutOfMemory, is_out_of_memory
from archsmith.parallel.distributed import size
from archsmith.train.runtime import peak_memory

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def sparing(
    phase: str,
    run: Callable[[], Result],
    halve: Callable[[], int],
    device: torch.device,
    *,
    drop: Callable[[], bool] = lambda: False,
) -> Result:
    """The result of `run`; if it runs out of memory, `halve` is called and it runs once more.

    `run` resumes from its last checkpoint, so a half-done update is never kept. `halve` doubles the
    number of micro-batches and returns it. Before that, `drop` is tried: it frees what only serves
    speed, and returns whether there was anything to free.

    Raises:
        OutOfMemory: memory does not suffice then either.
    """
    results = _attempted(phase, run, device)
    if not results and drop():
        log.warning("%s: out of memory with CUDA graphs; continued without", phase)
        results = _attempted(phase, run, device)
    if results:
        return results[0]
    peak, parts = peak_memory(device) / 1e9, halve()
    log.warning(
        "%s: out of memory at a peak of %.2f GB; continued from the last checkpoint with batches "
        "in %d parts, of the same size together (batch norms then see parts)",
        phase, peak, parts,
    )  # fmt: skip
    try:
        return run()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{phase}: out of memory, also with batches in {parts} parts (peak "
            f"{peak_memory(device) / 1e9:.2f} GB); set {phase}.micro_batches={2 * parts}, or lower "
            f"{phase}.batch_size or the network's channels and layers"
        ) from error


def _attempted(phase: str, run: Callable[[], Result], device: torch.device) -> list[Result]:
    """The result in a list; after out-of-memory an empty list, and unused memory is freed."""
    try:
        return [run()]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if size() > 1:  # the others have not failed and would not retry
            raise OutOfMemory(
                f"{phase}: out of memory on one of {size()} processes; set {phase}.micro_batches="
                f"2, lower {phase}.batch_size, or take more processes"
            ) from error
    gc.collect()  # after the handler, whose frames held tensors
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return []
