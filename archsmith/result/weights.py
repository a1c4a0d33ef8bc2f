"""Weights of a network as a safetensors file: names, shapes and numbers, nothing to execute."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from archsmith.files import write_atomically

Content = TypeVar("Content")


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers on the CPU, those of an auxiliary head left out."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in net.state_dict().items()
        if not name.startswith("auxiliary.")
    }


def save_weights(net: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes `weights_of(net)`, atomically.

    Equal weights give equal bytes if `metadata` has one key: safetensors keeps no order of several.
    """
    write_atomically(path, save(weights_of(net), dict(metadata)))


def load_weights(net: nn.Module, path: Path) -> None:
    """Reads a file into the network: every tensor of `weights_of(net)`, in its shape, and no other.

    Raises:
        ValueError: there is no such file, it is no safetensors file, a name or shape does not fit.
    """
    tensors = _read(path, load_file)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in weights_of(net).items()}
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{path}: '{name}' has shape {found.get(name, 'none, it is absent')}, "
                f"expected {wanted.get(name, 'no such tensor')}; "
                "give the weights that were trained with this architecture at this size"
            )
    net.load_state_dict(tensors, strict=False)  # all but the auxiliary head, as was just checked


def read_metadata(path: Path) -> dict[str, str]:
    """What the file says of itself. Raises ValueError where it cannot be read."""

    def metadata(path: Path) -> dict[str, str]:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}

    return _read(path, metadata)


def _read(path: Path, read: Callable[[Path], Content]) -> Content:
    try:
        return read(path)
    except FileNotFoundError:
        raise ValueError(
            f"weights: no file '{path}'; retrain first, or give another path"
        ) from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
