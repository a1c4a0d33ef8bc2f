"""Device, seeds and determinism of a run, and time and peak memory of its phases."""

import logging
import os
import platform
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
import torch

from archsmith.parallel import distributed
from archsmith.train.replay import captures_safely
from search_spaces.settings import Count, checked, setting
from supernets.forms import check_layout

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}  # autocast type of a network


@checked
@dataclass(frozen=True)
class Runtime:
    """The settings of a run that concern the machine.

    Args:
        deterministic: `auto` is on for the CPU, where it costs nothing, and off for CUDA.
        threads: CPU threads of torch; None leaves torch's choice.
        checkpoint_cells: recompute the activations of supernet cells in the backward pass, which
            saves memory and costs time.
        form: how a network computes, `auto` or one of `supernets.forms.FORMS`.
        channels_last: store feature maps in channels-last memory format; only on CUDA
            (`supernets.layout`).
        graphs: capture passes of a search and of a retraining as CUDA graphs and replay them, if
            they consist of the same operations every time (`archsmith.train.replay`); `auto` is on
            for CUDA from torch 2.15 on: before, a failed capture leaves the CUDA memory allocator
            unusable.
        sync_batch_norm: of several processes, batch norms use the images of all, as in one process;
            else each normalises its own.

    Raises:
        ValueError: a setting has an unknown value.
    """

    deterministic: Literal["auto", True, False]
    threads: Count | None
    form: Literal["auto", "reference", "fused", "native"]
    checkpoint_cells: bool
    channels_last: bool
    graphs: Literal["auto", True, False]
    sync_batch_norm: bool = False

    def captures(self, device: torch.device) -> bool:
        """Whether passes on this device are captured as graphs."""
        if self.graphs is True:
            return device.type == "cuda"
        return self.graphs == "auto" and captures_safely(device)

    def start(self, device: str, seed: int) -> torch.device:
        """Sets threads and determinism, seeds, and returns the device. Raises ValueError."""
        chosen = choose_device(device)
        if self.graphs is True and chosen.type != "cuda":
            raise ValueError(f"runtime.graphs: needs CUDA, found {chosen.type}; set it to auto")
        with setting("runtime"):
            check_layout(self.channels_last, chosen)
        if chosen.index is not None:
            torch.cuda.set_device(chosen)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        distributed.sync_batch_norm = self.sync_batch_norm
        on = chosen.type == "cpu" if self.deterministic == "auto" else bool(self.deterministic)
        if on:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(on)
        torch.backends.cudnn.benchmark = not on
        seed_everything(seed)
        return chosen


class Computing(NamedTuple):
    """How a final network computes, and where."""

    form: str  # one of `supernets.forms`
    device: torch.device
    channels_last: bool = False
    graphs: bool = False  # whether passes of its training are captured


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA if available. Raises ValueError for an unavailable device."""
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = str(name).partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, found '{name}'")
    if not available or int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: '{name}' is not on this machine; set device=cpu or device=auto")
    return torch.device(name)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def measured(device: torch.device) -> Iterator[dict[str, Any]]:
    """Measures `seconds`, `cpu_seconds` of this thread, and `peak_memory_bytes` of the block.

    On CUDA the peak of the memory that torch has reserved on the device; on the CPU the process's
    largest resident set so far, which includes torch itself and never decreases.
    """
    found: dict[str, Any] = {}
    forget_peak(device)
    start, busy = time.perf_counter(), time.thread_time()
    try:
        yield found
    finally:
        synchronize(device)
        found["seconds"] = round(time.perf_counter() - start, 3)
        found["cpu_seconds"] = round(time.thread_time() - busy, 3)
        found["peak_memory_bytes"] = peak_memory(device)


def forget_peak(device: torch.device) -> None:
    """On CUDA `peak_memory` counts from now on; what was reserved and is free is given back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: on CUDA what torch has reserved, as between replays a graph's memory is not allocated;
    the resident set of the process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions(*more: str) -> dict[str, str]:
    """The versions that a result depends on, and those of more packages."""
    packages = ("torch", "torchvision", "numpy", "hydra-core", "archsmith", *more)
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe_device(device: torch.device) -> str:
    """`cpu (x86_64, 2 threads)`, or the name of the GPU and how it computes with float32."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}{_tf32()})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def _tf32() -> str:
    """A suffix for the device name: the float32 operations in TF32 (ten bits of mantissa)."""
    kinds = {
        "convolutions": torch.backends.cudnn.allow_tf32,
        "matrix products": torch.backends.cuda.matmul.allow_tf32,
    }
    rounded = [kind for kind, on in kinds.items() if on]
    return f", float32 as TF32 in {' and '.join(rounded)}" if rounded else ""
