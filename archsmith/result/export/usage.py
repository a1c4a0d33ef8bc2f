"""How an exported `model.py` is used. Its text is copied there, below the network."""

import json
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from archsmith.data.pixels import fitted_image

# ruff: noqa: F821 (an exported file defines these names)
INPUT_SHAPE: tuple[int, int, int]
CLASSES: tuple[str, ...]
MEAN: list[float]
STD: list[float]
RESIZE: str
PARAMETERS: int
MACS: int
build: Callable[[], nn.Module]

WEIGHTS = Path(__file__).with_name("weights.safetensors")
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: a header's length, the header in JSON, the numbers."""
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        offset = start + entry["data_offsets"][0]
        flat = torch.frombuffer(content, dtype=dtype, count=prod(shape), offset=offset)
        tensors[name] = flat.reshape(shape)
    return tensors


def load(path: Path = WEIGHTS) -> nn.Module:
    """The trained network, ready to classify."""
    net = build()
    net.load_state_dict(read_weights(path))
    return net.eval()


def prepare(image: Tensor) -> Tensor:
    """The network's input (1, C, H, W) for an image (C, H, W), uint8 of 0..255 or float of 0..1."""
    if tuple(image.shape) != INPUT_SHAPE:
        found = tuple(image.shape)
        raise ValueError(f"expected an image {INPUT_SHAPE}, found {found}: resize it ({RESIZE})")
    x = image / 255 if image.dtype == torch.uint8 else image
    least, most = x.min().item(), x.max().item()
    if not x.is_floating_point() or not 0 <= least <= most <= 1:
        values = f"{image.dtype} of {least:.3g} to {most:.3g}"
        raise ValueError(f"expected uint8 of 0..255 or float of 0..1, found {values}")
    mean, std = torch.tensor([MEAN, STD])[:, :, None, None]
    return ((x.float() - mean) / std)[None]


def read_image(path: str) -> Tensor:
    """The image of a file, (C, H, W): a tensor of `torch.save`, an array of `numpy.save`, or (with
    Pillow) a picture of any size and mode, resized as in the training."""
    if path.endswith((".pt", ".pth")):
        return torch.load(path, weights_only=True)
    if path.endswith(".npy"):
        import numpy

        image = numpy.load(path, allow_pickle=False)
        if image.shape == INPUT_SHAPE:
            return torch.from_numpy(image)
    return torch.from_numpy(fitted_image(path, INPUT_SHAPE).copy())


@torch.inference_mode()
def main(paths: list[str]) -> None:
    """Prints the class of each image; without one, the size of the network."""
    if not paths:
        print(f"{PARAMETERS:,} parameters, {MACS:,} multiply-accumulates an image {INPUT_SHAPE}")
        return
    net = load()
    for path in paths:
        try:
            shares = net(prepare(read_image(path)))[0].softmax(0)
        except (OSError, ValueError, ImportError) as error:
            sys.exit(f"{path}: {error}")
        print(f"{path}: {CLASSES[int(shares.argmax())]} ({shares.max():.1%})")
