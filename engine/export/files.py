"""Exports a final network; every form is loaded back in a fresh process and its logits compared."""

import copy
import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from engine import interrupt
from engine.errors import Failure
from engine.export import reload
from engine.export.formats import FORMATS, Job, SkippedError, importable
from engine.export.literals import shortest
from engine.files import write_atomically
from engine.final.weights import save_weights, weights_of
from engine.runtime import versions
from search_spaces.architecture import Architecture
from supernets.costs import macs, parameters
from supernets.forms import use_form
from supernets.network import Network

log = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
BATCH_SIZES = (1, 3)
SEED = 0
TOLERANCE = 1e-4  # of the largest logit
PACKAGES = ("safetensors", "onnx", "onnxscript", "onnxruntime")
Normalisation = tuple[Sequence[float], Sequence[float]]


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
    """Writes `weights.safetensors`, the forms and `export.json`, whose content it returns.

    All forms are the eval network: no auxiliary head, no drop-path, one tensor of logits. A form
    that cannot be written is left out with its reason. Nothing enters `folder` unchecked.

    Args:
        normalisation: mean and deviation of each channel, for pixels of 0 to 1; None: as they are.

    Raises:
        ValueError: an unknown form, or classes or normalisation that do not fit the network.
        Failure: a form does not give the network's logits.
    """
    check_formats(formats)
    job = _job(net, architecture, normalisation, classes)
    folder.mkdir(parents=True, exist_ok=True)
    for killed in folder.glob(".unchecked-*"):
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unchecked-") as name:
        staging = Path(name)
        save_weights(job.net, staging / WEIGHTS, {"archsmith.network": job.about})
        forms = {name: _write(name, job, staging) for name in formats}
        largest = _check(job.net, staging, forms)
        summary = {
            "format": "archsmith.export/1",
            "architecture": architecture.identity,
            "space": job.net.space.name,
            "input_shape": list(job.net.space.input_shape),
            **job.facts,
            "weights": _describe(staging / WEIGHTS),
            "forms": forms,
            "check": {
                "batch_sizes": list(BATCH_SIZES),
                "seed": SEED,
                "largest_logit": largest,
                "tolerance": TOLERANCE * largest,
            },
            "versions": versions() | {package: _version(package) for package in PACKAGES},
        }
        _publish(staging, folder, [WEIGHTS, *(FORMATS[name][0] for name in formats)])
    write_atomically(folder / "export.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _job(
    net: Network,
    architecture: Architecture,
    normalisation: Normalisation | None,
    classes: Sequence[str],
) -> Job:
    """A copy of the network as it classifies, and what is said of it."""
    channels = net.space.input_shape[0]
    mean, std = normalisation or ([0.0] * channels, [1.0] * channels)
    architecture.check(net.space)
    if len(classes) != net.space.classes:
        raise ValueError(
            f"classes: {len(classes)} names for a network of {net.space.classes} classes"
        )
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"normalisation: {len(mean)} means and {len(std)} deviations, "
            f"expected {channels} of each, one a channel"
        )
    plain = copy.deepcopy(net).cpu().float().to(memory_format=torch.contiguous_format).eval()
    use_form(plain, "reference", torch.device("cpu"))  # what is traced is torch operations
    plain.auxiliary = None
    plain.set_drop_path(0.0)
    facts = {
        "classes": list(classes),
        "mean": [shortest(value) for value in mean],
        "std": [shortest(value) for value in std],
        "parameters": parameters(plain),
        "macs": macs(plain),
    }
    return Job(plain, architecture, facts)


def _write(name: str, job: Job, staging: Path) -> dict[str, Any]:
    """What is said of a form in `export.json`: its file, or why there is none."""
    interrupt.check("export")
    file, write = FORMATS[name]
    try:
        write(job, staging / file)
    except SkippedError as reason:
        log.warning("export: %s is left out: %s", file, reason)
        return {"skipped": str(reason)}
    return _describe(staging / file)


def _describe(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _check(net: Network, staging: Path, forms: dict[str, dict[str, Any]]) -> float:
    """Notes in `forms` how far each is from the network, and returns the largest logit.

    Raises:
        Failure: the weights, or a form's logits, are not the network's.
    """
    generator = torch.Generator().manual_seed(SEED)
    shape = net.space.input_shape
    inputs = [torch.randn(size, *shape, generator=generator) for size in BATCH_SIZES]
    with torch.no_grad():
        expected = [net(x) for x in inputs]
    largest = max(float(y.abs().max()) for y in expected)
    if not math.isfinite(largest):
        raise Failure(
            f"export: the network's logits reach {largest}, expected numbers; train again"
        )
    _check_weights(net, staging / WEIGHTS)
    loaded = [name for name in reload.LOADERS if "file" in forms.get(name, {})]
    if "onnx" in loaded and not importable("onnxruntime"):
        loaded.remove("onnx")
        forms["onnx"]["not_checked"] = "onnxruntime is not installed"
    outputs = _load_back(staging, inputs, loaded) if loaded else {}
    for name, found in outputs.items():
        form = f"export: {forms[name]['file']}"
        remedy = f"leave '{name}' out of export.formats, and report this"
        if isinstance(found, str):
            raise Failure(f"{form} cannot be loaded and run: {found}; {remedy}")
        gap = difference(expected, found)
        if gap > TOLERANCE * largest:
            raise Failure(
                f"{form} gives logits that differ by {gap:.3g} from the network's, "
                f"expected at most {TOLERANCE * largest:.3g}; {remedy}"
            )
        forms[name]["max_abs_difference"] = gap
    return largest


def difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest absolute difference; infinite where shapes differ or something is NaN."""
    if [y.shape for y in expected] != [y.shape for y in found]:
        return math.inf
    gaps = [float((a - b).abs().max()) for a, b in zip(expected, found, strict=True)]
    return math.inf if any(map(math.isnan, gaps)) else max(gaps)


def _check_weights(net: Network, path: Path) -> None:
    found = load_file(path)
    for name, tensor in weights_of(net).items():
        if name not in found or tensor.numpy().tobytes() != found[name].numpy().tobytes():
            raise Failure(
                f"export: '{name}' in {path.name} is not what the network has; export again"
            )


def _load_back(
    staging: Path, inputs: Sequence[Tensor], forms: Sequence[str]
) -> dict[str, list[Tensor] | str]:
    """The logits of each form, or what went wrong, from one fresh process without this project."""
    torch.save(list(inputs), staging / "inputs.pt")
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-I", reload.__file__, str(staging.resolve()), threads, *forms],
        cwd=staging,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    interrupt.check("export")  # a signal to the whole group has ended that process, too
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise Failure(
            f"export: the process that loads the files back ended with {done.returncode}, "
            f"expected 0 ({said[0]}); free memory, or set fewer export.formats"
        )
    return torch.load(staging / "outputs.pt", weights_only=True)


def _publish(staging: Path, folder: Path, files: Sequence[str]) -> None:
    """Moves the files; a form that was left out now takes an earlier one of its name with it."""
    for file in files:
        if (staging / file).is_file():
            os.replace(staging / file, folder / file)
        else:
            (folder / file).unlink(missing_ok=True)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
