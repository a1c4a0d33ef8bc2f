"""Weights of a network as a safetensors file, which contains no executable code."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from archsmith.files import write_atomically


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers on the CPU, without those of an auxiliary head."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in net.state_dict().items()
        if not name.startswith("auxiliary.")
    }


def save_weights(net: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes `weights_of(net)`, atomically.

    Equal weights give equal bytes if `metadata` has one key: safetensors does not keep the order.
    """
    write_atomically(path, save(weights_of(net), dict(metadata)))


def load_weights(net: nn.Module, path: Path) -> None:
    """Loads a file with exactly the tensors of `weights_of(net)` into the network.

    Raises:
        ValueError: no such file, not a safetensors file, or a name or shape does not match.
    """
    with _readable(path):
        tensors = load_file(path)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in weights_of(net).items()}
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{path}: '{name}' has shape {found.get(name, 'none, it is absent')}, "
                f"expected {wanted.get(name, 'no such tensor')}; "
                "give the weights that were trained with this architecture at this size"
            )
    net.load_state_dict(tensors, strict=False)  # lacks the auxiliary head, as checked


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of the file. Raises ValueError if it cannot be read."""
    with _readable(path), safe_open(path, framework="pt") as file:
        return file.metadata() or {}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ValueError(
            f"weights: no file '{path}'; retrain first, or give another path"
        ) from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
