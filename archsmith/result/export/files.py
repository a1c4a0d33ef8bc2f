"""Exports a final network; loads each format in a fresh process and compares its logits."""

import copy
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file
from torch import Tensor

from archsmith import interrupt
from archsmith.data.preprocessing import Preprocessing
from archsmith.errors import Failure
from archsmith.files import write_atomically
from archsmith.result.export.formats import FORMATS, ExportedModel, SkippedError, importable
from archsmith.result.export.fresh_process import FreshProcess
from archsmith.result.export.logits import (
    BATCH_SIZES,
    TOLERANCE,
    compare_logits,
    expected_logits,
    largest_of,
)
from archsmith.result.export.reload import LOADERS, SEED
from archsmith.result.weights import save_weights, weights_of
from archsmith.train import garbage
from archsmith.train.runtime import versions
from search_spaces.architecture import Architecture
from search_spaces.layers import laid_out
from supernets.costs import macs, parameters
from supernets.forms import use_form
from supernets.network import Network

log = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"


def check_export(formats: list[str], latency: bool) -> None:
    """Checks the settings of an export. Raises ValueError for an unknown format."""
    check_formats(formats)


def check_formats(formats: Sequence[str]) -> None:
    """Raises ValueError for an unknown format."""
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"export.formats: unknown '{name}'; known: {', '.join(FORMATS)}")


def export(
    net: Network,
    architecture: Architecture,
    folder: Path,
    *,
    preprocessing: Preprocessing,
    formats: Sequence[str],
    calibration: Tensor | None = None,
) -> dict[str, Any]:
    """Writes `weights.safetensors`, the formats and `export.json`, whose content it returns.

    All formats hold the eval network: no auxiliary head, no drop-path, one tensor of logits. A
    format that cannot be written is skipped with a reason. Nothing enters `folder` unchecked; of a
    quantised one, whose logits differ, the share of equal answers is told.

    Args:
        preprocessing: that of the network's training images; every format includes it.
        calibration: raw training images (N, C, H, W) uint8, for a quantised form.

    Raises:
        ValueError: an unknown format, or a preprocessing that does not fit the network.
        Failure: a format does not reproduce the network's logits.
    """
    check_formats(formats)
    model = _model(net, architecture, preprocessing, calibration)
    folder.mkdir(parents=True, exist_ok=True)
    for killed in folder.glob(".unchecked-*"):
        shutil.rmtree(killed, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".unchecked-") as name,
        garbage.uncollected(),
    ):
        summary = _write_checked(model, Path(name), formats)
        for file in [WEIGHTS, *(FORMATS[name][0] for name in formats)]:
            if (Path(name) / file).is_file():
                os.replace(Path(name) / file, folder / file)
            else:  # skipped: an earlier export's file goes
                (folder / file).unlink(missing_ok=True)
    write_atomically(folder / "export.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _model(
    net: Network,
    architecture: Architecture,
    preprocessing: Preprocessing,
    calibration: Tensor | None,
) -> ExportedModel:
    """A copy of the network for inference, with its metadata."""
    laid_out(architecture, net.space).check(net.space)
    preprocessing.check_fits(net.space.input_shape, net.space.classes)
    plain = copy.deepcopy(net).cpu().float().to(memory_format=torch.contiguous_format).eval()
    use_form(plain, "reference", torch.device("cpu"))  # tracing needs plain torch operations
    plain.auxiliary = None
    plain.set_drop_path(0.0)
    facts = {
        **preprocessing.about(),
        "mean": [float(str(numpy.float32(value))) for value in preprocessing.mean],  # few digits
        "std": [float(str(numpy.float32(value))) for value in preprocessing.std],
        **({"characters": preprocessing.characters} if preprocessing.reads_text else {}),
        "parameters": parameters(plain),
        "macs": macs(plain),
    }
    return ExportedModel(plain, architecture, preprocessing, facts, calibration)


def _write_checked(model: ExportedModel, folder: Path, formats: Sequence[str]) -> dict[str, Any]:
    """Writes all files and compares their logits; returns the content of `export.json`."""
    save_weights(model.net, folder / WEIGHTS, {"archsmith.network": model.about})
    _check_weights(model.net, folder / WEIGHTS)
    inputs, expected = expected_logits(model.classifier)
    forms, outputs = _write_all(model, folder, formats, inputs)
    compare_logits(forms, outputs, expected)
    largest = largest_of(expected)
    return {
        "format": "archsmith.export/1",
        "architecture": model.architecture.identity,
        "space": model.net.space.name,
        **model.facts,
        "weights": _describe(folder / WEIGHTS),
        "forms": forms,
        "check": {
            "batch_sizes": list(BATCH_SIZES),
            "seed": SEED,
            "largest_logit": largest,
            "tolerance": TOLERANCE * largest,
        },
        "versions": versions("safetensors", "onnx", "onnxscript", "onnxruntime"),
    }


def _check_weights(net: Network, path: Path) -> None:
    found = load_file(path)
    for name, tensor in weights_of(net).items():
        if name not in found or tensor.numpy().tobytes() != found[name].numpy().tobytes():
            raise Failure(
                f"export: '{name}' in {path.name} is not what the network has; export again"
            )


def _write_all(
    model: ExportedModel, folder: Path, formats: Sequence[str], inputs: Sequence[Tensor]
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Tensor] | str]]:
    """The entries of all formats, and the logits of those that are loaded back meanwhile."""
    loaded = {name for name in formats if name in LOADERS}
    if not importable("onnxruntime"):
        loaded.discard("onnx")
    forms: dict[str, dict[str, Any]] = {name: {} for name in formats}
    with FreshProcess(folder, inputs) if loaded else nullcontext() as fresh:
        for name in FORMATS:
            if name in forms:
                forms[name] = _write(name, model, folder)
            if fresh is not None and name in loaded and "file" in forms[name]:
                fresh.load(name)
        outputs = fresh.outputs() if fresh is not None else {}
    if "onnx" not in loaded and "file" in forms.get("onnx", {}):
        forms["onnx"]["not_checked"] = "onnxruntime is not installed"
    return forms, outputs


def _write(name: str, model: ExportedModel, folder: Path) -> dict[str, Any]:
    """The entry of a format in `export.json`: its file, or why there is none."""
    interrupt.check("export")
    file, write = FORMATS[name]
    try:
        write(model, folder / file)
    except SkippedError as reason:
        log.warning("export: %s is left out: %s", file, reason)
        return {"skipped": str(reason)}
    entry = _describe(folder / file)
    if name == "int8":
        entry["agreement"] = _agreement(model, folder / file)
    return entry


@torch.no_grad()
def _agreement(model: ExportedModel, path: Path) -> float:
    """The share of the calibration images to which a quantised network gives the same class.

    Raises Failure if its logits are not finite.
    """
    from archsmith.result.export.quantised import OnnxNetwork

    assert model.calibration is not None
    found, images = OnnxNetwork(path)(model.calibration), model.calibration
    if not found.isfinite().all():
        raise Failure(
            f"export: {path.name} gives logits that are not finite; leave 'int8' out of "
            "export.formats"
        )
    expected = torch.cat([model.classifier(batch) for batch in images.split(64)])
    return float((found.argmax(1) == expected.argmax(1)).float().mean())


def _describe(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"file": path.name, "bytes": len(content), "sha256": digest}
