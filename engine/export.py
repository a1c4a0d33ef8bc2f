"""A trained final network in forms that do not need this project, each loaded back and compared.

Images must be normalised before they enter; `model.py` does it itself in `prepare`.
"""

import copy
import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from engine import reload
from engine.checkpoint import write_atomically
from engine.errors import Failure
from engine.literals import shortest
from engine.runtime import versions
from engine.sources import UnportableError
from engine.standalone import standalone
from engine.weights import save_weights, weights_of
from search_spaces.architecture import Architecture
from search_spaces.genotype import to_genotype, to_nasbench201
from supernets.costs import macs, parameters
from supernets.network import Network

log = logging.getLogger(__name__)

OPSET = 18  # the lowest that torch really writes
BATCH_SIZES = (1, 3)
TOLERANCE = 1e-4  # of the largest logit
PACKAGES = ("safetensors", "onnx", "onnxscript", "onnxruntime")
Normalisation = tuple[Sequence[float], Sequence[float]]


class SkippedError(Exception):
    """A form cannot be written here; says why."""


@dataclass(frozen=True)
class Job:
    """What every writer needs: the eval network and what is said of it."""

    net: Network
    architecture: Architecture
    facts: dict[str, Any]  # classes, mean, std, parameters, macs

    @cached_property
    def about(self) -> str:
        """What a file says of itself, in JSON: no path, no time."""
        said = {name: self.facts[name] for name in ("classes", "mean", "std")}
        found = json.loads(self.architecture.to_json(meta=False))
        return json.dumps(
            {"architecture": found, "network": dict(self.net.space.settings), **said}, sort_keys=True
        )

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The network as a graph with any batch size, from which ONNX and .pt2 are written."""
        example = torch.zeros(2, *self.net.space.input_shape)
        shapes = {"x": {0: torch.export.Dim("batch")}}
        program = torch.export.export(self.net, (example,), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        return program


def write_standalone(job: Job, path: Path) -> None:
    try:
        text = standalone(job.net, job.architecture, weights_of(job.net), job.facts)
    except UnportableError as error:
        raise SkippedError(str(error)) from error
    path.write_text(text, encoding="utf-8")


def write_onnx(job: Job, path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        if not _importable(package):
            raise SkippedError(f"{package} is not installed; pip install 'archsmith[onnx]'")
    program = torch.onnx.export(
        job.program,
        (),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes={"x": {0: "batch"}},
        input_names=["image"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["archsmith"] = job.about
    program.save(path, external_data=False)


def write_pt2(job: Job, path: Path) -> None:
    torch.export.save(job.program, path, extra_files={"archsmith.json": job.about})


def write_genotype(job: Job, path: Path) -> None:
    texts = {"darts": to_genotype, "nasbench201": to_nasbench201}
    name = job.net.space.name
    if name not in texts:
        raise SkippedError(f"space '{name}' has no text form; there is one for {', '.join(texts)}")
    try:
        path.write_text(texts[name](job.architecture) + "\n", encoding="utf-8")
    except ValueError as error:
        raise SkippedError(str(error)) from error


# format -> its file and what writes it
FORMATS: dict[str, tuple[str, Callable[[Job, Path], None]]] = {
    "standalone": ("model.py", write_standalone),
    "onnx": ("model.onnx", write_onnx),
    "pt2": ("model.pt2", write_pt2),
    "genotype": ("genotype.txt", write_genotype),
}


def check_formats(formats: Sequence[str]) -> None:
    """Raises ValueError for a form that there is not."""
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"export.formats: unknown '{name}'; known: {', '.join(FORMATS)}")


def export(
    net: Network,
    architecture: Architecture,
    folder: Path,
    *,
    normalisation: Normalisation | None,
    classes: Sequence[str],
    formats: Sequence[str],
) -> dict[str, Any]:
    """Writes `weights.safetensors`, the chosen forms and `export.json`, whose content it returns.

    All forms are the eval network: no auxiliary head, no drop-path, one tensor of logits. A form that
    cannot be written is skipped with its reason. Nothing enters `folder` before all forms are checked.

    Args:
        normalisation: mean and standard deviation of each channel, for pixels of 0 to 1; None for 0 and 1.

    Raises:
        ValueError: an unknown format, or classes or normalisation that do not fit the network.
        Failure: a form does not give the network's logits.
    """
    check_formats(formats)
    job = _job(net, architecture, normalisation, classes)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".checking-") as name:
        staging = Path(name)
        save_weights(job.net, staging / "weights.safetensors", {"archsmith.network": job.about})
        skipped = _write(job, staging, formats)
        differences = check(job.net, staging, [f for f in formats if f not in skipped])
        ...
    return summary
