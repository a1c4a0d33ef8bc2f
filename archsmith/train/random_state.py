"""The states of all random generators of a run, as tensors and plain values."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The states of torch (CPU and current CUDA device), numpy and Python."""
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "python": [version, list(words), gauss],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of `random_state`, on the current CUDA device."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])
    numpy = dict(state["numpy"])
    np.random.set_state({**numpy, "state": {**numpy["state"]}})
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
