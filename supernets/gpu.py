"""What is asked of a device: whether its operations are launched, captured, or autocast."""

import torch


def launches(device: torch.device) -> bool:
    """Whether computing on a device means launching kernels: on all but the CPU. Meta tensors stand
    for a GPU's, so that its operations can be counted (benchmarks/launches.py)."""
    return device.type != "cpu"


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for a device."""
    return device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)


def capturing(device: torch.device) -> bool:
    """Whether operations are being captured as a CUDA graph."""
    on_cuda = device.type == "cuda" and torch.cuda.is_initialized()
    return on_cuda and torch.cuda.is_current_stream_capturing()
