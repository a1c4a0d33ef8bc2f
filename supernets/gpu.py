"""Where operations are launched, so that many small ones take longer than they compute."""

import torch


def launches(device: torch.device) -> bool:
    """Whether computing on a device means launching kernels: on all but the CPU. Meta tensors stand
    for a GPU's, so that its operations can be counted (benchmarks/launches.py)."""
    return device.type != "cpu"


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for a device."""
    return device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)
