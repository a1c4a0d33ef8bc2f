"""The text of `model.py`, run in this process; test_export.py runs it in fresh ones."""

import ast
import functools
import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image
from torch import Tensor, nn

from archsmith.result.export.definitions import UnportableError
from archsmith.result.export.literals import Code, literal
from archsmith.result.export.standalone import standalone
from archsmith.result.weights import save_weights
from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.goldnas import goldnas
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.nasbench201 import nasbench201
from search_spaces.ops import ReLUConvBN
from search_spaces.space import Space
from supernets.costs import macs, parameters
from supernets.network import Network, final_network

SLOPE = math.sqrt(0.04)
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
SEVERAL = {"0-2": ["skip_connect", "sep_conv_3x3"], "0-3": ["max_pool_3x3"], "2-4": ["none"]}
CELL = {
    "0-1": ["nor_conv_3x3"],
    "0-2": ["avg_pool_3x3"],
    "1-2": ["skip_connect"],
    "2-3": ["nor_conv_1x1"],
}
NO_INPUTS = {"0-2": ["nor_conv_1x1"], "1-3": ["nor_conv_3x3"], "2-3": ["skip_connect"]}


class Leaky(nn.Module):
    """An operation from outside, with a constant, a module, and a class of the project."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool, k: int):
        super().__init__()
        self.conv = ReLUConvBN(c_in, c_out, stride, affine=affine, kernel_size=k)
        self.search = search

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.conv(x), SLOPE)


class FinalCell(Leaky):
    """Has a name that model.py needs."""


def darts_space(**changes) -> Space:
    settings = dict(layers=3, nodes=4, channels=4, input_shape=(3, 16, 16), classes=10)
    return darts(**{"candidates": list(CANDIDATES), **settings, **changes})


def nasbench_space(**changes) -> Space:
    settings = dict(layers=5, nodes=3, channels=4, input_shape=(3, 16, 16), classes=10)
    return nasbench201(**{"candidates": list(NASBENCH201), **settings, **changes})


def everywhere(space: Space, kept: dict) -> tuple[Space, Architecture]:
    return space, Architecture.of(space, dict.fromkeys(space.groups, kept))


GOLD = ["skip_connect", "sep_conv_3x3"]
GOLDNAS = goldnas(
    layers=3, nodes=2, channels=4, candidates=GOLD, input_shape=(3, 16, 16), classes=10
)

CASES = {
    "goldnas": everywhere(GOLDNAS, {"0-2": GOLD, "1-2": GOLD[:1], "0-3": GOLD, "2-3": GOLD}),
    "all seven operations": everywhere(darts_space(), ALL_SEVEN),
    "a group for each layer": everywhere(darts_space(share_alphas=False), ALL_SEVEN),
    "several operations on an edge": everywhere(darts_space(), SEVERAL),
    "33 x 47, four channels": everywhere(darts_space(input_shape=(4, 33, 47)), ALL_SEVEN),
    "long lines": everywhere(darts_space(channels=1200, share_alphas=False), {"0-2": ["none"]}),
    "8 x 8, one channel": everywhere(darts_space(input_shape=(1, 8, 8)), ALL_SEVEN),
    "hundred classes": everywhere(nasbench_space(classes=100), CELL),
    "imagenet stem": everywhere(darts_space(stem="imagenet", input_shape=(3, 64, 64)), ALL_SEVEN),
    "nasbench201": everywhere(nasbench_space(), CELL),
    "nasbench201, 33 x 47": everywhere(nasbench_space(input_shape=(1, 33, 47)), CELL),
    "nasbench201, a node without inputs": everywhere(nasbench_space(), NO_INPUTS),
    "nasbench201, 8 x 8": everywhere(nasbench_space(input_shape=(3, 8, 8)), CELL),
}


def trained(net: Network) -> Network:
    """Every weight and batch-norm statistic drawn anew, so that none is what it starts as."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            spread = nn.init.uniform_(tensor.view(-1), 0.5, 1.5)
            tensor.copy_(spread.view_as(tensor) * (1 if "running_var" in name else 0.3))
            if "running_var" not in name:
                tensor.mul_(torch.randn_like(tensor).sign())
    return net.eval()


def written(net: Network, architecture: Architecture, classes=None) -> str:
    space = net.space
    facts = {
        "classes": classes or [f"class {i}" for i in range(space.classes)],
        "mean": [0.25] * space.input_shape[0],
        "std": [0.5] * space.input_shape[0],
        "resize": "bilinear",
        "parameters": parameters(net),
        "macs": macs(net),
    }
    return standalone(space, architecture, facts)


def imported(folder: Path, text: str) -> ModuleType:
    (folder / "model.py").write_text(text)
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != "long lines"])
def test_it_is_the_network(case, tmp_path):
    space, architecture = CASES[case]
    net = trained(final_network(space, architecture))
    save_weights(net, tmp_path / "weights.safetensors", {"archsmith": "{}"})
    model = imported(tmp_path, written(net, architecture))
    copy = model.load()
    assert list(copy.state_dict()) == list(net.state_dict())
    assert [type(p) for p in copy.parameters()] == [type(p) for p in net.parameters()]
    for size in (1, 3, 64):
        x = torch.randn(size, *space.input_shape)
        assert torch.equal(copy(x), net(x))
    size = sum(parameter.numel() for parameter in copy.parameters())
    assert space.input_shape == model.INPUT_SHAPE
    assert [size, model.PARAMETERS, model.MACS] == [parameters(net), parameters(net), macs(net)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_is_clean_and_holds_nothing_that_is_not_used(case, tmp_path):
    space, architecture = CASES[case]
    with torch.device("meta"):
        text = written(final_network(space, architecture), architecture)
    (tmp_path / "model.py").write_text(text)
    for command in (["check"], ["format", "--check"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", "."],
            cwd=tmp_path,
            check=True,
        )
    tree = ast.parse(text)
    defined = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    for name in defined:
        assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is not used"
    assert not re.search(r"mixture|auxiliary|alpha|form\b", text)


def test_only_operations_that_were_chosen_stand_there(tmp_path):
    space, architecture = everywhere(nasbench_space(), NO_INPUTS)
    text = written(final_network(space, architecture), architecture)
    for other in ("SepConv", "fit_input", "imagenet_stem", "normalised_skip"):
        assert other not in text
    assert "AvgPool" not in re.sub(r"nn\.\w+", "", text)
    assert "return nn.Identity()" in text


def test_the_same_text_whatever_the_order_of_sets(tmp_path):
    space, architecture = CASES["all seven operations"]
    texts = {written(final_network(space, architecture), architecture) for _ in range(2)}
    assert len(texts) == 1


def test_an_image_is_normalised_and_named(tmp_path, capsys):
    space, architecture = CASES["8 x 8, one channel"]
    net = trained(final_network(space, architecture))
    names = ['it\'s "one"', "zwei\n", "três"] + [str(i) for i in range(7)]
    save_weights(net, tmp_path / "weights.safetensors", {})
    model = imported(tmp_path, written(net, architecture, names))
    assert list(model.CLASSES) == names
    image = torch.randint(256, (1, 8, 8), dtype=torch.uint8)
    x = (image / 255 - 0.25) / 0.5
    torch.testing.assert_close(model.prepare(image), x[None])
    torch.testing.assert_close(model.prepare(image / 255), x[None])
    with pytest.raises(ValueError, match=r"an image \(1, 8, 8\), found \(8, 8\): resize"):
        model.prepare(image[0])
    with pytest.raises(ValueError, match=r"found \(1, 96, 96\): resize it \(bilinear\)"):
        model.prepare(torch.zeros(1, 96, 96))
    for wrong in (image.float(), x - 1, image.long() // 256, image / 255 * torch.nan):
        with pytest.raises(ValueError, match=r"uint8 of 0..255 or float of 0..1, found torch"):
            model.prepare(wrong)
    torch.save(image, tmp_path / "image.pt")
    model.main([str(tmp_path / "image.pt")])
    C, H, W = model.INPUT_SHAPE
    Image.new("RGB" if C == 3 else "L", (W, H)).save(tmp_path / "cat.png")
    model.main([str(tmp_path / "cat.png")])
    assert "cat.png: " in capsys.readouterr().out
    (tmp_path / "dog.jpg").write_text("no picture")
    with pytest.raises(SystemExit, match=r"dog\.jpg: cannot identify"):
        model.main([str(tmp_path / "dog.jpg")])
    model.main([str(tmp_path / "image.pt")])
    assert names[int(net(x[None]).argmax())] in capsys.readouterr().out
    model.main([])
    assert f"{parameters(net):,} parameters, {macs(net):,} multiply" in capsys.readouterr().out


def outside(constructor, on: str = "2-3") -> tuple[Space, Architecture]:
    """An operation `mine` on one edge of the cells, separable convolutions around it."""
    names = [*CANDIDATES, "mine"]
    space = darts_space(nodes=2, candidates=names, operations={"mine": constructor})
    kept = {"0-2": ["sep_conv_3x3"], "1-2": ["sep_conv_3x3"], "1-3": ["skip_connect"]}
    return everywhere(space, kept | {on: ["mine"]})


def test_an_operation_from_outside_comes_with_its_source(tmp_path):
    space, architecture = outside(functools.partial(Leaky, k=5), on="0-2")
    net = trained(final_network(space, architecture))
    text = written(net, architecture)
    save_weights(net, tmp_path / "weights.safetensors", {})
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(imported(tmp_path, text).load()(x), net(x))
    assert '"mine": partial(Leaky, k=5)' in text
    assert "SLOPE = math.sqrt(0.04)" in text
    assert '"sep_conv_3x3": partial(SepConv, kernel_size=3)' in text


def test_a_class_of_torch_is_imported(tmp_path):
    space, architecture = outside(nn.Identity)
    text = written(final_network(space, architecture), architecture)
    assert "class Identity" not in text
    imported(tmp_path, text)


@pytest.mark.parametrize(
    ("constructor", "reason"),
    [
        (lambda c_in, c_out, stride, *, affine, search: nn.Identity(), "no class or function at"),
        (functools.partial(FinalCell, k=3), "rename it"),
        (functools.partial(nn.Identity, path=Path("x")), "no literal of a PosixPath"),
        (functools.partial(nn.Identity, 3), "have no names"),
    ],
)
def test_an_operation_that_cannot_be_copied_is_named_with_the_reason(constructor, reason):
    space, architecture = outside(constructor)
    net = final_network(space, architecture)
    with pytest.raises(UnportableError, match=f"operation 'mine': .*{reason}"):
        written(net, architecture)


def test_an_operation_that_needs_more_than_torch_is_named(tmp_path, monkeypatch):
    (tmp_path / "far_away.py").write_text(
        "import numpy as np\nfrom torch import nn\n\n\n"
        "def op(c_in, c_out, stride, *, affine, search):\n"
        "    return nn.MaxPool2d(1, int(np.sqrt(stride * stride)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import far_away

    space, architecture = outside(far_away.op)
    with pytest.raises(UnportableError, match="'mine': far_away takes 'np' from numpy; a stand-"):
        written(final_network(space, architecture), architecture)


def test_modules_that_an_operation_reads_come_with_what_is_read(tmp_path, monkeypatch):
    (tmp_path / "far_parts.py").write_text(
        "from torch import nn\n\n\n# Of the parts.\nDEPTH = 2\n\n\n"
        "class Part(nn.Identity):\n    depth = DEPTH\n\n\nclass Other(Part):\n    pass\n"
    )
    (tmp_path / "far_ops.py").write_text(
        "import torch.nn as layers\n\nfrom search_spaces import ops\n"
        "from search_spaces.ops import ReLUConvBN as Conv\n\n\n"
        "def op(c_in, c_out, stride, *, affine, search):\n"
        "    pool = ops.AvgPool(c_out, c_out, 1, affine=affine, search=search)\n"
        "    return layers.Sequential(Conv(c_in, c_out, stride, affine=affine), pool)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import far_ops
    import far_parts

    space, architecture = outside(far_ops.op, on="0-2")
    net = trained(final_network(space, architecture))
    text = written(net, architecture)
    save_weights(net, tmp_path / "weights.safetensors", {})
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(imported(tmp_path, text).load()(x), net(x))
    for line in ("ops = SimpleNamespace(AvgPool=AvgPool)", "Conv = ReLUConvBN"):
        assert line in text

    text = written(final_network(*outside(far_parts.Part)), outside(far_parts.Part)[1])
    assert "# Of the parts.\nDEPTH = 2" in text
    assert "Other" not in text


def test_literals_are_laid_out_as_ruff_does():
    assert literal({"a": (1,), 2: [None, "é"]}) == '{"a": (1,), 2: [None, "é"]}'
    assert literal([Code("f(x)"), 'say "no"']) == '[f(x), "say \\"no\\""]'
    assert literal([math.inf, -math.inf, np.float64(0.5)]) == '[float("inf"), float("-inf"), 0.5]'
    long = literal({"key": ["x" * 60, "y" * 60]}, indent=4)
    assert long.splitlines()[1] == '        "key": ['
    assert long.splitlines()[-1] == "    }"
