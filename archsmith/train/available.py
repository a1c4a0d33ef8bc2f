"""Memory that is available for a step: on the device, or on the host within its control groups."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

GROUPS = Path("/proc/self/cgroup")
# controller in that file -> folder of its groups, and names of limit, usage and reclaimable memory
CONTROL = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


class Memory(NamedTuple):
    """Bytes free for this process now, and the total."""

    free: int
    total: int


def memory_of(device: torch.device) -> Memory:
    """The memory of a device; for the CPU, of the machine or of the process's tightest control
    group.

    Swap counts towards the total, never as free.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Memory(free + unused, total)
    machine = psutil.virtual_memory()
    swap = psutil.swap_memory().total
    limits = [Memory(machine.available, machine.total), *control_groups()]
    return Memory(min(m.free for m in limits), min(m.total for m in limits) + swap)


def control_groups(groups: Path = GROUPS, root: Path = Path("/")) -> Iterator[Memory]:
    """The memory of each control group of this process that has a limit; none outside Linux."""
    if not groups.is_file():
        return
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in set(controllers.split(",")) & set(CONTROL):
            place, limit, used, freeable = CONTROL[controller]
            top = root / place.lstrip("/")
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(top):
                    yield from _limited(folder / limit, folder / used, freeable)


def _limited(limit: Path, used: Path, freeable: str) -> Iterator[Memory]:
    try:
        most, taken = int(limit.read_text()), int(used.read_text())
        stat = dict(
            line.split() for line in limit.with_name("memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):  # the limit is "max", or the group is in another namespace
        return
    yield Memory(max(0, most - taken + int(stat.get(freeable, 0))), most)
