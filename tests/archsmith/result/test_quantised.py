"""The network with 8 bits: how far off its logits are, what a run says of it, and its time."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_command_line import TINY
from test_every_config import composed, make

import archsmith as library
from archsmith.data.preprocessing import Preprocessing
from archsmith.result.export.card import model_card
from archsmith.result.export.files import export
from archsmith.result.export.quantised import OnnxNetwork, quantise
from search_spaces.architecture import Architecture
from supernets.network import final_network

KEPT = {"0-2": ["sep_conv_3x3"], "1-2": ["skip_connect"], "0-3": ["max_pool_3x3"]}


def one_layer(path: Path, weight: np.ndarray) -> None:
    """Pixels (B, 4, 1, 1) uint8 -> logits (B, 2): one 1x1 convolution, then flattened."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["x"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
            helper.make_node("Flatten", ["y"], ["logits"], "flatten"),
        ],
        "net",
        [value("image", TensorProto.UINT8, ["batch", 4, 1, 1])],
        [value("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )


def test_logits_are_as_near_as_the_steps_of_weights_and_activations(tmp_path: Path):
    """Pixels of 0 to 255 are exact (a step of 1). A weight is off by half a step of
    max|w| / 63.5 of its channel (7 bits), the logits by half a step of their range / 255."""
    weight = np.array([[0.5, -1.0, 0.25, 0.1], [8.0, -2.0, 1.0, 0.3]], np.float32)
    images = torch.tensor(np.random.default_rng(0).integers(0, 256, (256, 4, 1, 1), np.uint8))
    images[0], images[1] = 0, 255
    one_layer(tmp_path / "float.onnx", weight[:, :, None, None])
    quantise(tmp_path / "float.onnx", tmp_path / "int8.onnx", images)
    exact = images[:, :, 0, 0].float() @ torch.tensor(weight).T
    found = OnnxNetwork(tmp_path / "int8.onnx")(images)
    half_steps = torch.tensor(abs(weight).max(1)) / 63.5 / 2
    bound = (
        half_steps * images[:, :, 0, 0].float().sum(1)[:, None]
        + float(exact.max() - exact.min()) / 255 / 2
    )
    assert ((found - exact).abs() <= 1.02 * bound).all()
    assert (found - exact).abs().max() > 0  # it is quantised

    (stored,) = (
        numpy_helper.to_array(one)
        for one in onnx.load(tmp_path / "int8.onnx").graph.initializer
        if one.data_type == TensorProto.INT8 and len(one.dims) == 4
    )
    assert abs(stored.astype(int)).max() == 64  # a channel's largest weight
    assert stored[0, :, 0, 0].tolist() == pytest.approx([32, -64, 16, 6.4], abs=1)


def toy(space):
    torch.manual_seed(0)
    architecture = Architecture.of(space, dict.fromkeys(space.groups, KEPT))
    C = space.input_shape[0]
    classes = tuple(map(str, range(space.classes)))
    preprocessing = Preprocessing(classes, space.input_shape, (0.4,) * C, (0.25,) * C)
    return final_network(space, architecture).eval(), architecture, preprocessing


@pytest.mark.slow
def test_it_is_exported_where_there_are_images(toy_darts, tmp_path: Path):
    net, architecture, preprocessing = toy(toy_darts)
    images = torch.randint(256, (128, 3, 16, 16), dtype=torch.uint8)

    def forms(folder: Path, *names: str, **more) -> dict:
        how = {"preprocessing": preprocessing, "formats": names, **more}
        return export(net, architecture, folder, **how)["forms"]

    found = forms(tmp_path / "both", "onnx", "int8", calibration=images)
    assert found["int8"]["agreement"] > 0.8
    alone = forms(tmp_path / "alone", "int8", calibration=images)
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {
        "export.json", "weights.safetensors", "model_int8.onnx",
    }  # fmt: skip
    assert alone["int8"]["sha256"] == found["int8"]["sha256"]
    session = onnxruntime.InferenceSession(tmp_path / "both" / "model_int8.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["archsmith"])
    assert about["preprocessing"]["classes"] == list(preprocessing.classes)
    for batch in (1, 7):
        (logits,) = session.run(["logits"], {"image": images[:batch].numpy()})
        assert logits.shape == (batch, 10)

    without = forms(tmp_path / "without", "int8")["int8"]
    assert "calibrated on training images, and there are none here" in without["skipped"]
    assert not (tmp_path / "without" / "model_int8.onnx").exists()


@pytest.mark.slow
def test_a_run_tests_it_and_says_what_it_counts(archsmith):
    said = archsmith(*TINY, "export.formats=[standalone,onnx,int8]", "export.latency=true")
    assert said.code == 0, said.err
    (folder,) = Path("outputs").iterdir()
    results = json.loads((folder / "results.json").read_text())
    assert results["test_reads"] == 2  # the network's, and that of the quantised one
    told, files = results["int8"], {"model.py", "model.onnx", "model_int8.onnx"}
    assert set(results["latency"]) == files
    assert all(one["median"] > 0 and one["batch"] == 1 for one in results["latency"].values())

    data = make(composed(*TINY[:4]).data)
    net = library.load(folder)
    graph = OnnxNetwork(folder / "export" / "model_int8.onnx")
    images, labels = map(torch.cat, zip(*data.test(7, net.preprocessing).raw(), strict=True))
    assert images.dtype == torch.uint8
    answers = graph(images).argmax(1)
    assert told["images"] == len(labels)
    assert told["accuracy"] == pytest.approx((answers == labels).double().mean().item())
    same = (answers == net(images).argmax(1)).double().mean()
    assert told["agreement"] == pytest.approx(same.item())
    assert f"test accuracy (int8)            {100 * told['accuracy']:.2f}% (the same" in said.out

    card = (folder / "export" / "README.md").read_text()
    assert f"| accuracy with 8 bits | {100 * told['accuracy']:.2f}% of" in card
    assert f"| time of `model.py` | {results['latency']['model.py']['median']:.3g} ms" in card

    again = ["task=export", f"architecture={folder}", "hydra.run.dir=again", "runtime.threads=1"]
    assert archsmith(*again, "export.formats=[int8]").code == 0  # on the images of that run
    assert json.loads(Path("again/results.json").read_text())["int8"] == told
    again = [one.replace("again", "timed") for one in again]
    said = archsmith(*again, "export.formats=[onnx]", "export.latency=true")  # reads no images
    assert said.code == 0, said.err
    results = json.loads(Path("timed/results.json").read_text())
    assert set(results["latency"]) == {"model.py", "model.onnx"}
    assert (results["int8"], results["test_reads"]) == (None, 0)


def test_the_card_has_the_latency_that_a_budget_was_measured_with(toy_darts, tmp_path: Path):
    net, architecture, preprocessing = toy(toy_darts)
    how = {"preprocessing": preprocessing, "formats": []}
    told = {
        "strategy": "darts", "space": "darts", "seed": 0, "data": "toy", "data_fingerprint": None,
        "test_accuracy": None, "test_doubt": None, "degenerate": None, "test_reads": 0,
        "budget": {"latency": {"median": 1.234, "low": 1.1, "high": 1.5, "batch": 8}},
    }  # fmt: skip
    written = export(net, architecture, tmp_path, **how)
    assert "| time of `model.py` | 1.23 ms for 8 images (quartiles 1.1 to 1.5) |" in model_card(
        written, told
    )
    assert "time of" not in model_card(written, told | {"budget": None})
