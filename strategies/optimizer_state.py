"""Optimiser state keyed by parameter name, so that moments are restored to the right parameter."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

HOST = ("step", "mu_product")  # numbers that torch's optimisers keep on the CPU


def named_state(optimizer: Optimizer, names: Mapping[int, str]) -> dict[str, Any]:
    """The optimiser's state; `names` maps `id(parameter)` to its name."""
    return {
        "state": {names[id(p)]: dict(values) for p, values in optimizer.state.items()},
        "lr": [group["lr"] for group in optimizer.param_groups],
    }


def load_named_state(
    optimizer: Optimizer, names: Mapping[int, str], saved: Mapping[str, Any]
) -> None:
    """Restores a `named_state`.

    Raises KeyError for an unknown parameter name, ValueError for an invalid moment.
    """
    parameters = {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
    optimizer.state.clear()
    for name, values in saved["state"].items():
        parameter = parameters[name]
        for key, value in values.items():
            shapes = (parameter.shape, torch.Size())
            if value is not None and (not isinstance(value, Tensor) or value.shape not in shapes):
                raise ValueError(f"'{key}' of '{name}' is no tensor of shape {tuple(shapes[0])}")
        optimizer.state[parameter] = {
            key: value.to(parameter.device) if key not in HOST and hasattr(value, "to") else value
            for key, value in values.items()
        }
    for group, lr in zip(optimizer.param_groups, saved["lr"], strict=True):
        group["lr"] = lr
