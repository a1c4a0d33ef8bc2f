"""The phase that exports the found network, and measures what was exported."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from archsmith.data.preprocessing import Preprocessing
from archsmith.data.roles import Data
from archsmith.errors import ConfigError
from archsmith.files import write_atomically
from archsmith.job import Job
from archsmith.phases.final import check_same_data, size_of
from archsmith.phases.run import Run
from archsmith.result.classifier import Classifier
from archsmith.result.export.card import model_card
from archsmith.result.export.files import export
from archsmith.result.export.formats import FORMATS, importable
from archsmith.result.export.quantised import CALIBRATION, OnnxNetwork
from archsmith.result.latency import measure_latency, passes
from archsmith.result.network import digest_of
from archsmith.result.outcome import outcome
from archsmith.train.evaluate import evaluate
from archsmith.train.runtime import describe_device
from supernets.network import Network

log = logging.getLogger(__name__)
QUANTISED = FORMATS["int8"][0]


def export_phase(run: Run) -> None:
    """Exports the network to run without this project; checks each file in a fresh process.

    A quantised form is tested on the test split, which counts as a read.
    """
    job = run.job
    net, architecture, preprocessing, data, path = run.final()
    identity: dict[str, Any] = {"weights": digest_of(path), "formats": list(job.formats)}
    identity |= {"latency": job.budget.latency_batch} if job.measures_latency else {}
    if run.finished("export", identity):
        return
    log.info("export: %s, each loaded again in a fresh process", ", ".join(job.formats) or "none")
    quantised = "int8" in job.formats and not preprocessing.reads_text
    if quantised:
        check_same_data(job.data, data, preprocessing)
    run.results.update(latency=None, int8=None)  # of an earlier export
    with run.measuring("export"):
        latency = _latency(job, net) if job.measures_latency else {}
        written = export(
            net.cpu(),
            architecture,
            job.folder / "export",
            preprocessing=preprocessing,
            formats=job.formats,
            calibration=_calibration(job.data, preprocessing) if quantised else None,
        )
        graphs = _graphs(job, written["forms"])
        if job.measures_latency:
            batch = job.budget.latency_batch
            latency |= {file: _latency_of(graph, net, batch) for file, graph in graphs.items()}
            run.results.update(latency=latency)
        if QUANTISED in graphs:
            _test_quantised(run, graphs[QUANTISED], Classifier(net, preprocessing).eval())
    run.results.update(data=data, **size_of(run, net, architecture))
    card = model_card(written, run.results.fields)
    write_atomically(job.folder / "export" / "README.md", card.encode())
    run.finish("export", identity)


def _graphs(job: Job, forms: Mapping[str, Mapping[str, Any]]) -> dict[str, OnnxNetwork]:
    """File -> network of the ONNX files that are to be timed or tested, if they can run here."""
    wanted = ["onnx", "int8"] if job.measures_latency else ["int8"]
    files = [forms[name]["file"] for name in wanted if "file" in forms.get(name, {})]
    if not importable("onnxruntime"):
        return {}
    return {file: OnnxNetwork(job.folder / "export" / file) for file in files}


def _latency(job: Job, net: Network) -> dict[str, Any]:
    """The latency of the network as `model.py` runs it, on the device."""
    found = measure_latency(net, job.device, job.budget.latency_batch)
    device = describe_device(job.device)
    log.info("export: a pass takes %.3g ms (batch %d, %s)", found.median, found.batch, device)
    return {"model.py": {**found.to_json(), "device": device}}


def _latency_of(graph: OnnxNetwork, net: Network, batch: int) -> dict[str, Any]:
    """The latency of a network's ONNX file on the CPU."""
    cpu = torch.device("cpu")
    x = torch.zeros(batch, *net.space.input_shape, dtype=torch.uint8)
    found = passes(lambda: graph(x), batch, cpu)
    return {**found.to_json(), "device": f"{describe_device(cpu)}, onnxruntime"}


def _calibration(data: Data, preprocessing: Preprocessing) -> Tensor:
    """Training images, evenly spaced, on the CPU: (N, C, H, W) uint8.

    Raises ConfigError for images of another size than the network's.
    """
    if data.input_shape != preprocessing.input_shape:
        found, wanted = data.input_shape, preprocessing.input_shape
        raise ConfigError(f"data: images of {found}, expected {wanted}, as the network was trained")
    every = data.images.all[:: max(1, len(data.images) // CALIBRATION)][:CALIBRATION]
    ((images, _),) = data.images.batches([every])
    return images.cpu()


def _test_quantised(run: Run, graph: OnnxNetwork, net: Classifier) -> None:
    """Evaluates a quantised network on the test split, beside the network itself on the CPU."""
    job, same = run.job, 0

    def compare(x: Tensor, _: Tensor, logits: Tensor) -> None:
        nonlocal same
        same += int((net(x).argmax(1) == logits.argmax(1)).sum())

    log.info("export: the test images are read for the quantised network")
    images = job.data.test(job.recipe.batch_size, net.preprocessing).raw()
    tested = outcome(evaluate(graph, images, seen=compare), job.data.classes)
    told = {name: tested[f"test_{name}"] for name in ("accuracy", "balanced_accuracy", "interval")}
    told |= {"images": tested["test_images"], "agreement": same / tested["test_images"]}
    run.results.update(int8=told, test_reads=run.results.fields["test_reads"] + 1)
