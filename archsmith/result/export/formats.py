"""The formats of an exported network, each written by a function `(model, path)`.

All take raw images: `model.py` by its function `prepare`, the graphs as uint8 only, so that images
cannot be passed in a wrong range.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archsmith.data.preprocessing import Preprocessing
from archsmith.result.classifier import Classifier
from archsmith.result.export.definitions import UnportableError
from archsmith.result.export.standalone import standalone
from search_spaces.architecture import Architecture
from search_spaces.genotype import to_genotype, to_nasbench201, to_nni
from supernets.network import Network


class SkippedError(Exception):
    """A format cannot be written here; the message says why."""


@dataclass(frozen=True)
class ExportedModel:
    """What every writer needs: the eval network and its metadata."""

    net: Network
    architecture: Architecture
    preprocessing: Preprocessing
    facts: dict[str, Any]  # the preprocessing, parameters, macs
    calibration: Tensor | None = None  # raw training images, of which a quantised form needs some

    @property
    def classifier(self) -> Classifier:
        """The network for raw images."""
        return Classifier(self.net, self.preprocessing).eval()

    @cached_property
    def about(self) -> str:
        """The metadata of a file, as JSON; it contains no path and no time."""
        found = json.loads(self.architecture.to_json(meta=False))
        network, prepared = dict(self.net.space.settings), self.preprocessing.about()
        return json.dumps(
            {"architecture": found, "network": network, "preprocessing": prepared}, sort_keys=True
        )

    @cached_property
    def draws(self) -> bool:
        """Whether the network draws random numbers: two passes of one image differ."""
        image = torch.zeros(1, *self.preprocessing.input_shape, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            return not torch.equal(self.classifier(image), self.classifier(image))

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """Raw images (B, C, H, W) uint8 -> logits, for any B; the source of ONNX and .pt2."""
        example = torch.zeros(2, *self.preprocessing.input_shape, dtype=torch.uint8)
        shapes = {"images": {0: torch.export.Dim("batch")}}
        with torch.no_grad():  # traces the same graph, faster
            program = torch.export.export(self.classifier, (example,), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # contains paths of this machine
        return program


def write_standalone(model: ExportedModel, path: Path) -> None:
    with skipping(UnportableError):
        text = standalone(model.net.space, model.architecture, model.facts)
        path.write_text(text, encoding="utf-8")


def write_onnx(model: ExportedModel, path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        if not importable(package):
            raise SkippedError(f"{package} is not installed; pip install 'archsmith[onnx]'")
    if model.draws:
        raise SkippedError(
            "the network draws random numbers, and ONNX runtimes draw others than torch, so its "
            "logits cannot be checked; search without operations that draw, such as 'noise'"
        )
    from archsmith.result.export.onnx_form import to_onnx  # imports torch.onnx

    program = to_onnx(model.program)
    program.model.metadata_props["archsmith"] = model.about
    program.save(path, external_data=False)


def write_int8(model: ExportedModel, path: Path) -> None:
    if model.preprocessing.reads_text:
        raise SkippedError("8 bits are for images; leave 'int8' out of export.formats")
    if model.calibration is None:
        raise SkippedError(
            "it is calibrated on training images, and there are none here; use task=export"
        )
    if not importable("onnxruntime"):
        raise SkippedError("onnxruntime is not installed; pip install 'archsmith[onnx]'")
    source = path.with_name(FORMATS["onnx"][0])
    if not source.is_file():
        source = path.with_name("float.onnx")
        write_onnx(model, source)
    from archsmith.result.export.quantised import quantise  # imports onnxruntime's tool

    quantise(source, path, model.calibration)


def write_pt2(model: ExportedModel, path: Path) -> None:
    torch.export.save(model.program, path, extra_files={"archsmith.json": model.about})


def write_genotype(model: ExportedModel, path: Path) -> None:
    texts = {"darts": to_genotype, "nasbench201": to_nasbench201}
    name = model.net.space.name
    if name not in texts:
        raise SkippedError(f"space '{name}' has no text form; there is one for {', '.join(texts)}")
    with skipping(ValueError):
        path.write_text(texts[name](model.architecture) + "\n", encoding="utf-8")


def write_nni(model: ExportedModel, path: Path) -> None:
    with skipping(ValueError):
        path.write_text(json.dumps(to_nni(model.architecture), indent=2) + "\n", encoding="utf-8")


@contextmanager
def skipping(kind: type[Exception]) -> Iterator[None]:
    """Turns an error of this kind into the reason why the format is left out."""
    try:
        yield
    except kind as reason:
        raise SkippedError(str(reason)) from reason


# format -> file name and writer, in the order of writing: .pt2 takes longest to load back
FORMATS: dict[str, tuple[str, Callable[[ExportedModel, Path], None]]] = {
    "pt2": ("model.pt2", write_pt2),
    "standalone": ("model.py", write_standalone),
    "genotype": ("genotype.txt", write_genotype),
    "nni": ("nni.json", write_nni),
    "onnx": ("model.onnx", write_onnx),
    "int8": ("model_int8.onnx", write_int8),
}


def importable(package: str) -> bool:
    """Whether a package is installed, without importing it."""
    return importlib.util.find_spec(package) is not None
