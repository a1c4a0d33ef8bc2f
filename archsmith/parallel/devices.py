"""The GPU of each process."""

import os

import torch

from archsmith.errors import ConfigError
from archsmith.parallel import distributed


def local_device(name: str) -> str:
    """The setting `device` for this process: a GPU of its own, by its local rank, or the only one
    that it sees (Slurm, CUDA_VISIBLE_DEVICES). Raises ConfigError."""
    size = distributed.size()
    if size == 1 or name == "cpu":
        return name
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = 0 if gpus == 1 else int(os.environ.get("LOCAL_RANK", 0))
    own = str(torch.cuda.get_device_properties(here).uuid) if here < gpus else None
    everyone = distributed.from_all(own)
    if not any(everyone):
        return name
    if name not in ("auto", "cuda"):
        raise ConfigError(f"device: '{name}' for {size} processes; set device=cuda or device=cpu")
    if None in everyone or len(set(everyone)) < size:
        raise ConfigError(
            f"device: process {distributed.rank()} finds {gpus} GPUs, and each of {size} processes "
            "needs its own; start as many on each machine as it has GPUs, or set device=cpu"
        )
    return f"cuda:{here}"
