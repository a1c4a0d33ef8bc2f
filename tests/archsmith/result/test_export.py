"""Every form of a network, loaded back in fresh processes."""

import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from torch import Tensor, nn

from archsmith.data.preprocessing import Preprocessing
from archsmith.errors import Failure
from archsmith.result.export import files as exporting
from archsmith.result.export import formats
from archsmith.result.export.files import check_formats, export
from archsmith.result.export.fresh_process import FreshProcess
from archsmith.result.export.logits import difference
from archsmith.result.weights import load_weights, read_metadata, weights_of
from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.genotype import from_genotype, from_nasbench201
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space
from supernets.costs import macs, parameters
from supernets.forms import use_form
from supernets.native import build
from supernets.network import Network, final_network

ALL = ["standalone", "onnx", "pt2", "genotype"]
ASCII = {"PYTHONIOENCODING": "ascii"}  # a terminal that knows no other letters
PROJECT = {"search_spaces", "supernets", "strategies", "archsmith", "run", "safetensors"}
SMALL = {"0-2": ["sep_conv_3x3"], "1-2": ["skip_connect"], "0-3": ["max_pool_3x3"]}
ALL_SEVEN = {
    "0-2": ["sep_conv_3x3"],
    "1-2": ["sep_conv_5x5"],
    "0-3": ["dil_conv_3x3"],
    "1-3": ["skip_connect"],
    "0-4": ["max_pool_3x3"],
    "3-4": ["dil_conv_5x5"],
    "1-5": ["avg_pool_3x3"],
    "2-5": ["skip_connect"],
}
CELL = {"0-1": ["nor_conv_3x3"], "0-2": ["avg_pool_3x3"], "1-2": ["skip_connect"]}
NO_INPUTS = {"0-2": ["nor_conv_1x1"], "1-3": ["nor_conv_3x3"], "2-3": ["skip_connect"]}


class Gate(nn.Module):
    """An operation from outside."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * y.mean((2, 3), keepdim=True).sigmoid()


def chosen(space: Space, kept: dict, **kwargs) -> tuple[Network, Architecture]:
    """A network that looks trained: every statistic and scale has left its first value."""
    architecture = Architecture.of(space, dict.fromkeys(space.groups, kept), seed=0)
    net = final_network(space, architecture, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.3)
    return net, architecture


def darts_space(**changes) -> Space:
    settings = dict(layers=3, nodes=4, channels=4, input_shape=(3, 16, 16), classes=10)
    return darts(**{"candidates": list(CANDIDATES), **settings, **changes})


def nasbench_space(**changes) -> Space:
    settings = dict(layers=5, nodes=3, channels=4, input_shape=(3, 16, 16), classes=10)
    return nasbench201(**{"candidates": list(NASBENCH201), **settings, **changes})


def exported(
    net: Network, architecture: Architecture, folder: Path, *names: str, **changes
) -> dict:
    given = {"preprocessing": prepared(net.space, **changes)}
    return export(net, architecture, folder, **given, formats=names)


def prepared(space: Space, **changes) -> Preprocessing:
    channels = space.input_shape[0]
    given = {
        "classes": tuple(str(i) for i in range(space.classes)),
        "input_shape": tuple(space.input_shape),
        "mean": (0.4,) * channels,
        "std": (0.25,) * channels,
    }
    return Preprocessing(**given | changes)


def flip_a_sign(folder: Path) -> None:
    """The sign bit of the first number of the last layer's weight."""
    content = bytearray((folder / "weights.safetensors").read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    offset = json.loads(content[8:start])["head.2.weight"]["data_offsets"][0]
    content[start + offset + 3] ^= 0x80
    (folder / "weights.safetensors").write_bytes(content)


@pytest.mark.slow
def test_stand_alone_file_and_record(toy_darts, tmp_path):
    net, architecture = chosen(toy_darts, SMALL, auxiliary=True)
    net.set_drop_path(0.3)
    net.train()
    net.to(memory_format=torch.channels_last)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]).tolist(), [0.2, 0.2, 0.2]
    found = exported(
        net, architecture, tmp_path, "standalone", "genotype", mean=tuple(mean), std=tuple(std)
    )

    assert net.training
    assert json.loads((tmp_path / "export.json").read_text()) == found
    assert found["forms"]["standalone"]["max_abs_difference"] == 0.0
    assert (found["parameters"], found["macs"]) == (parameters(net), macs(net))
    assert found["mean"] == [0.4914, 0.4822, 0.4465]
    for entry in (found["weights"], *found["forms"].values()):
        content = (tmp_path / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["bytes"] == len(content)
    files = ["export.json", "genotype.txt", "model.py", "weights.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert "auxiliary" not in (tmp_path / "model.py").read_text()

    about = json.loads(read_metadata(tmp_path / "weights.safetensors")["archsmith.network"])
    assert Architecture.parse(about["architecture"], "weights") == architecture
    assert about["network"]["channels"] == 8
    assert str(tmp_path) not in json.dumps(about)
    again = final_network(toy_darts, Architecture.parse(about["architecture"], "weights"))
    load_weights(again, tmp_path / "weights.safetensors")
    wanted = weights_of(net)
    assert all(torch.equal(wanted[name], tensor) for name, tensor in again.state_dict().items())
    text = (tmp_path / "genotype.txt").read_text()
    assert from_genotype(text, toy_darts).choices == architecture.choices


@pytest.mark.slow
@pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler on this machine")
def test_a_network_in_the_native_form_leaves_as_torch_operations(toy_darts, tmp_path):
    net, architecture = chosen(toy_darts, SMALL)
    use_form(net, "native", torch.device("cpu"))
    found = exported(net, architecture, tmp_path, "standalone")
    assert found["forms"]["standalone"]["max_abs_difference"] == 0.0
    assert all(cell.form is not None for cell in net.layers)


def test_nasbench201_has_its_string(toy_nasbench201, tmp_path):
    net, architecture = chosen(toy_nasbench201, CELL)
    exported(net, architecture, tmp_path, "genotype")
    text = (tmp_path / "genotype.txt").read_text()
    assert text == "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|none~0|none~1|none~2|\n"
    assert from_nasbench201(text, toy_nasbench201).choices == architecture.choices


@pytest.mark.slow
def test_what_cannot_be_written_is_left_out_with_the_reason(tmp_path, monkeypatch):
    space = darts_space(candidates=[*CANDIDATES, "mine"], operations={"mine": _local()})
    net, architecture = chosen(space, {"0-2": ["mine", "skip_connect", "sep_conv_3x3"]})
    monkeypatch.setattr(formats, "importable", lambda package: package != "onnxscript")
    (tmp_path / "model.py").write_text("of an earlier export")
    forms = exported(net, architecture, tmp_path, "standalone", "onnx", "genotype")["forms"]
    assert forms["standalone"]["skipped"].startswith(
        "operation 'mine': _local.<locals>.Local is no"
    )
    assert forms["onnx"]["skipped"].startswith("onnxscript is not installed; pip install")
    assert "3 inputs" in forms["genotype"]["skipped"]
    files = ["export.json", "weights.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def _local() -> type:
    class Local(Gate):
        """Its source could not be copied without what surrounds it."""

    return Local


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        (
            {},
            ["onxx"],
            "export.formats: unknown 'onxx'; known: pt2, standalone, genotype, nni, onnx",
        ),
        ({"classes": ("a",)}, [], r"for \(3, 16, 16\) and 1 classes, found a network of .* and 10"),
        ({"mean": (0.5,), "std": (0.5,)}, [], "expected 3 numbers, one a channel"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, names, message, toy_darts, tmp_path):
    with pytest.raises(ValueError, match=message):
        exported(*chosen(toy_darts, SMALL), tmp_path / "new", *names, **changes)
    assert not (tmp_path / "new").exists()
    check_formats(ALL)


def test_difference_sees_shapes_and_nan():
    x = torch.tensor([1.0, 2.0])
    assert difference([x, x], [x, x + torch.tensor([0.0, 0.5])]) == 0.5
    assert difference([x], [x[:1]]) == float("inf")
    assert difference([x], [x * float("nan")]) == float("inf")


def test_a_network_without_finite_logits_is_refused(toy_darts, tmp_path):
    net, architecture = chosen(toy_darts, SMALL)
    nn.init.constant_(net.head[2].bias, float("nan"))
    with pytest.raises(Failure, match="logits reach nan"):
        exported(net, architecture, tmp_path)


def test_weights_that_changed_on_the_way_are_named(toy_darts, tmp_path, monkeypatch):
    def save(net, path, metadata, *, save=exporting.save_weights):
        save(net, path, metadata)
        flip_a_sign(path.parent)

    monkeypatch.setattr(exporting, "save_weights", save)
    with pytest.raises(Failure, match=r"'head.2.weight' in weights.safetensors is not what"):
        exported(*chosen(toy_darts, SMALL), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_flipped_bit_is_a_difference_of_logits(toy_darts, tmp_path, monkeypatch):
    def load(self, form, *, load=FreshProcess.load):
        flip_a_sign(self.folder)
        load(self, form)

    monkeypatch.setattr(FreshProcess, "load", load)
    with pytest.raises(
        Failure, match=r"model.py gives logits that differ by .* leave 'standalone'"
    ):
        exported(*chosen(toy_darts, SMALL), tmp_path, "standalone")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("module", ["search_spaces.ops", "archsmith", "safetensors"])
def test_a_file_that_needs_the_project_is_found_out(module, toy_darts, tmp_path, monkeypatch):
    def write(job, path, *, write=formats.write_standalone):
        write(job, path)
        path.write_text(f"import {module}\n" + path.read_text())

    monkeypatch.setitem(formats.FORMATS, "standalone", ("model.py", write))
    with pytest.raises(Failure, match=r"model\.py cannot be loaded and run: ModuleNotFoundError"):
        exported(*chosen(toy_darts, SMALL), tmp_path, "standalone")


@pytest.mark.slow
def test_without_onnxruntime_onnx_is_written_but_not_checked(toy_darts, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "importable", lambda package: False)
    form = exported(*chosen(toy_darts, SMALL), tmp_path, "onnx")["forms"]["onnx"]
    assert form["not_checked"] == "onnxruntime is not installed"
    assert (tmp_path / "model.onnx").is_file()


CASES = {
    "all seven operations": (darts_space(), ALL_SEVEN),
    "8 x 8, one channel": (darts_space(input_shape=(1, 8, 8)), ALL_SEVEN),
    "33 x 47, four channels": (darts_space(input_shape=(4, 33, 47)), ALL_SEVEN),
    "imagenet stem": (darts_space(stem="imagenet", input_shape=(3, 64, 64)), ALL_SEVEN),
    "outside": (darts_space(candidates=[*CANDIDATES, "g"], operations={"g": Gate}), {"0-2": ["g"]}),
    "nasbench201, 33 x 47": (nasbench_space(input_shape=(1, 33, 47)), CELL),
    "nasbench201, a node without inputs": (nasbench_space(), NO_INPUTS),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_form_gives_the_logits(case, tmp_path):
    space, kept = CASES[case]
    auxiliary = space.name == "darts"
    net, architecture = chosen(space, kept, auxiliary=auxiliary)
    net.set_drop_path(0.3)
    use_form(net, "auto", torch.device("cpu"))
    found = exported(net, architecture, tmp_path, *ALL)
    for name in ("standalone", "onnx", "pt2"):
        form = found["forms"][name]
        assert form["max_abs_difference"] <= found["check"]["tolerance"]
        content = (tmp_path / form["file"]).read_bytes()
        assert str(ROOT).encode() not in content, f"{name} holds a path"

    images = torch.randint(256, (64, *space.input_shape), dtype=torch.uint8)
    expected = net.eval()((images / 255 - 0.4) / 0.25).detach()
    import onnxruntime  # takes long to import

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (logits,) = session.run(None, {"image": images.numpy()})
    again = torch.export.load(tmp_path / "model.pt2").module()
    for found in (torch.from_numpy(logits), again(images)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match="nexpected input data type"):
        session.run(None, {"image": (images / 255).numpy()})
    with pytest.raises(Exception, match="dtype"):
        again(images / 255)


@pytest.mark.slow
def test_noise_leaves_with_the_same_draws_or_not_at_all(tmp_path):
    space = darts_space(candidates=["noise", "sep_conv_3x3"])
    net, architecture = chosen(space, {"0-2": ["noise"], "1-2": ["sep_conv_3x3"], "2-3": ["noise"]})
    before = torch.get_rng_state()
    forms = exported(net, architecture, tmp_path, "standalone", "onnx", "pt2", "nni")["forms"]
    assert torch.equal(torch.get_rng_state(), before)
    assert forms["standalone"]["max_abs_difference"] == forms["pt2"]["max_abs_difference"] == 0.0
    assert forms["onnx"]["skipped"].startswith("the network draws random numbers")
    assert "class Noise" in (tmp_path / "model.py").read_text()
    images = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    again = torch.export.load(tmp_path / "model.pt2").module()
    assert not torch.equal(again(images), again(images))


@pytest.mark.slow
def test_the_stand_alone_file_runs_from_anywhere_without_the_project(toy_darts, tmp_path):
    net, architecture = chosen(toy_darts, SMALL)
    names = tuple(f"gr\u00fcn {i}" for i in range(10))
    exported(net, architecture, tmp_path / "export", "standalone", classes=names)
    image = torch.rand(3, 16, 16)
    torch.save(image, tmp_path / "image.pt")
    guess = int(net.eval()((image[None] - 0.4) / 0.25).argmax())
    script = str(tmp_path / "export" / "model.py")
    prints = functools.partial(
        subprocess.check_output, text=True, cwd=tmp_path, env=os.environ | ASCII
    )
    said = prints([sys.executable, script, "image.pt"])
    assert said.startswith(rf"image.pt: gr\xfcn {guess} (")
    code = f"import runpy, sys; runpy.run_path({script!r}); print(*sys.modules)"
    modules = prints([sys.executable, "-I", "-c", code]).split()
    assert "torch" in modules
    assert not PROJECT & {module.partition(".")[0] for module in modules}
