"""Strategies, searchers, spaces and operations come from outside the packages, by configuration."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from test_command_line import TINY

from archsmith.cli import naming
from search_spaces.architecture import Architecture
from strategies.searchers.random import RandomSearch
from supernets.costs import candidate_macs
from supernets.final_costs import final_costs
from supernets.mixed_op import MixedOp
from supernets.network import final_network, supernet

CONF = Path(__file__).resolve().parents[1] / "conf"
SHAPES = dict(input_shape=(3, 16, 16), classes=10)
SIZES = ["space.layers=3", "space.nodes=2", "space.channels=8"]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch) -> Path:
    """A folder of the user's, importable and on the configuration's search path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        sys.modules.pop(name, None)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def composed(outside: Path, *overrides: str) -> DictConfig:
    naming.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=[f"hydra.searchpath=[file://{outside}]", *overrides])


def make(node: DictConfig, **live: Any) -> Any:
    return instantiate(node, _convert_="all")(**live)


def one_step(config: DictConfig) -> dict[str, torch.Tensor]:
    space = make(config.space, **SHAPES)
    strategy = make(config.strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    batch = torch.randn(4, 3, 16, 16), torch.randint(10, (4,))
    return strategy.step(net, batch, batch, progress=0.5, move_alphas=True)


@pytest.mark.slow
def test_a_strategy_of_known_ingredients_is_a_yaml(outside: Path):
    write(
        outside / "strategy" / "cool.yaml",
        """\
        defaults: [pcdarts, _self_]
        warmup: 0.1
        relaxation: {start: 5.0, end: 0.1}
        """,
    )
    config = composed(outside, "strategy=cool", *SIZES)
    assert (config.strategy.mixed_op.k, config.strategy.relaxation.start) == (4, 5.0)
    assert torch.isfinite(one_step(config)["train_loss"])


@pytest.mark.slow
def test_an_ingredient_is_a_class_and_a_yaml(outside: Path):
    write(
        outside / "my_relaxation.py",
        """\
        from strategies.contracts import Relaxation

        class Shares(Relaxation):
            def forward(self, alphas, alive):
                shares = alphas.exp() * alive
                return shares / shares.sum(1, keepdim=True).clamp_min(1e-9), None
        """,
    )
    write(outside / "strategy" / "relaxation" / "shares.yaml", "_target_: my_relaxation.Shares\n")
    config = composed(outside, "strategy=darts", "strategy/relaxation=shares", *SIZES)
    assert torch.isfinite(one_step(config)["val_loss"])


def test_a_space_is_a_function_and_a_yaml(outside: Path):
    write(
        outside / "my_space.py",
        """\
        from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
        from search_spaces.darts import CANDIDATES
        from search_spaces.space import family

        @family("line", CANDIDATES)
        def line(*, length, channels, **common):
            edges = complete_edges(1, length, list(CANDIDATES))
            return CellSpace(
                cells={"line": Cell(1, length, edges, keep=1, output="last")},
                layers=(Layer("line", "line", channels, reduction=False),) * 2,
                stem="plain",
                stem_channels=channels,
                preprocess=False,
                head="pool_linear",
                **common,
            )
        """,
    )
    write(
        outside / "space" / "line.yaml",
        "_target_: my_space.line\n_partial_: true\nlength: 3\nchannels: 8\n",
    )
    config = composed(outside, "space=line", "strategy=darts", "experiment=paper")
    assert torch.isfinite(one_step(config)["train_loss"])
    space = make(config.space, **SHAPES)
    assert final_network(space, RandomSearch(space).ask())(torch.randn(2, 3, 16, 16)).shape == (
        2,
        10,
    )


def test_an_operation_is_a_setting(outside: Path):
    write(
        outside / "my_ops.py",
        """\
        from torch import nn

        class Blur(nn.AvgPool2d):
            def __init__(self, c_in, c_out, stride, *, affine, search):
                super().__init__(5, stride, padding=2)
        """,
    )
    config = composed(
        outside,
        "+space.operations.blur={_target_: my_ops.Blur, _partial_: true}",
        "space.candidates=[skip_connect,blur]",
        *SIZES,
    )
    assert torch.isfinite(one_step(config)["train_loss"])
    space = make(config.space, **SHAPES)
    names = {
        n for c in RandomSearch(space).ask().choices.values() for kept in c.values() for n in kept
    }
    assert names <= {"skip_connect", "blur"}


def test_a_kind_of_loss_is_a_class_and_a_yaml(outside: Path):
    """A term that is 3 everywhere: the loss of a step is the cross-entropy plus 3 times its
    weight, on the batches of weights only."""
    write(
        outside / "my_losses.py",
        """\
        from strategies.contracts import LossTerm

        class Constant(LossTerm):
            roles = ("train",)

            def __init__(self, weight: float):
                self.weight = weight

            def __call__(self, net, batch, logits, mixture):
                return self.weight * 3 * logits.new_ones(())
        """,
    )
    write(
        outside / "strategy" / "losses" / "constant.yaml",
        "constant: {_target_: my_losses.Constant, weight: 2.0}\n",
    )
    config = composed(outside, "strategy=darts", "+strategy/losses=constant", *SIZES)
    space = make(config.space, **SHAPES)
    strategy = make(config.strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    batch = torch.randn(4, 3, 16, 16), torch.randint(10, (4,))
    loss, logits = strategy.loss(net, batch)
    plain = torch.nn.functional.cross_entropy(logits, batch[1])
    assert loss.item() == pytest.approx(plain.item() + 6.0)
    loss, logits = strategy.loss(net, batch, "val")
    assert loss.item() == torch.nn.functional.cross_entropy(logits, batch[1]).item()


ATTENTION = """\
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, c_in, c_out, stride, *, affine, search):
            super().__init__()
            self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.attention = nn.MultiheadAttention(c_in, 1, bias=False, batch_first=True)

        def forward(self, x):
            x = self.pool(x)
            y = x.flatten(2).transpose(1, 2)  # (B, HW, C)
            y, _ = self.attention(y, y, y, need_weights=False)
            return y.transpose(1, 2).view_as(x)
"""


def test_a_candidate_with_attention_is_counted_right(outside: Path):
    """n = H W places of C channels: 4 projections of n C^2, and 2 products of n^2 C."""
    write(outside / "my_ops.py", ATTENTION)
    config = composed(
        outside,
        "+space.operations.attention={_target_: my_ops.Attention, _partial_: true}",
        "space.candidates=[skip_connect,attention]",
        "space=nasbench201", "space.layers=5", "space.nodes=1", "space.channels=4",
    )  # fmt: skip
    space = make(config.space, input_shape=(3, 8, 8), classes=3)
    by_hand = sum(
        4 * n * c**2 + 2 * n**2 * c for c, n in ((4, 8 * 8), (8, 4 * 4), (16, 2 * 2))
    )  # fmt: skip
    counted = candidate_macs(supernet(space, MixedOp))["cell"]
    assert counted.tolist() == [[0, by_hand]]
    costs = final_costs(space)
    assert costs["macs"].tables["cell"].tolist() == [[0, by_hand]]
    assert costs["params"].tables["cell"].tolist() == [[0, sum(4 * c**2 for c in (4, 8, 16))]]


MBCONV = """\
    from torch import nn

    class MBConv(nn.Module):
        \"\"\"Inverted bottleneck, arXiv:1801.04381, section 3.3.\"\"\"

        def __init__(self, c_in, c_out, stride, *, affine, search, kernel_size, expansion):
            super().__init__()
            width = expansion * c_in

            def norm(c):
                return nn.BatchNorm2d(c, affine=affine)

            self.layers = nn.Sequential(
                nn.Conv2d(c_in, width, 1, bias=False), norm(width), nn.ReLU6(),
                nn.Conv2d(width, width, kernel_size, stride, kernel_size // 2, groups=width,
                          bias=False),
                norm(width), nn.ReLU6(),
                nn.Conv2d(width, c_out, 1, bias=False), norm(c_out),
            )
            self.keeps_shape = stride == 1 and c_in == c_out

        def forward(self, x):
            y = self.layers(x)
            return x + y if self.keeps_shape else y
"""


TASK = """\
from archsmith.cli.tasks import Task


def greet(task, config):
    print(f"{task.name}: seed {config.seed}, strategy {task.help}")


GREET = Task("greet", "prints the seed", greet)
"""


@pytest.mark.slow
def test_a_task_is_an_object_and_a_setting(archsmith, outside: Path):
    write(outside / "my_tasks.py", TASK)
    said = archsmith("task=greet", "seed=3", "+tasks.greet=my_tasks.GREET")
    assert (said.code, said.out) == (0, "greet: seed 3, strategy prints the seed\n"), said.err
    for wrong, message in (
        ("my_tasks.greet", "expected a Task of archsmith.cli.tasks, found <function greet"),
        ("my_tasks.nothing", "'my_tasks.nothing' cannot be imported"),
    ):
        said = archsmith("task=greet", f"+tasks.greet={wrong}")
        assert said.code == 2
        assert f"tasks.greet: {message}" in said.err.replace(f"'{wrong}' {message}", message)


HILL_CLIMBER = """\
import torch

from search_spaces.architecture import Architecture
from strategies.searchers.searcher import Searcher
from strategies.searchers.random import drawn


class HillClimber(Searcher):
    def __init__(self, space, *, asks, patience):
        super().__init__(space, asks)
        self.patience, self.best = patience, None
        self.generator = torch.Generator().manual_seed(0)

    def ask(self):
        choices = self.space.choices
        new = {name: drawn(choice, self.generator) for name, choice in choices.items()}
        if self.best is not None:  # only one group changes
            (first, *_) = choices
            new = self.best[1].choices | {first: new[first]}
        return Architecture.of(self.space, new)

    def tell(self, architecture, score):
        if self.best is None or score > self.best[0]:
            self.best = score, architecture
"""


@pytest.mark.slow
def test_a_chain_of_mbconv_blocks_with_changing_widths_is_searched_retrained_and_exported(
    outside: Path, archsmith
):
    write(outside / "my_blocks.py", MBCONV)
    write(
        outside / "space" / "inverted.yaml",
        """\
        defaults: [chain, _self_]
        layers: 4
        channels: 6
        widths: [1, 1.5, 2.5]
        candidates: [k3e3, k5e3, k3e6]
        operations:
          k3e3: {_target_: my_blocks.MBConv, _partial_: true, kernel_size: 3, expansion: 3}
          k5e3: {_target_: my_blocks.MBConv, _partial_: true, kernel_size: 5, expansion: 3}
          k3e6: {_target_: my_blocks.MBConv, _partial_: true, kernel_size: 3, expansion: 6}
        """,
    )
    said = archsmith(
        "--config-dir", str(outside), "space=inverted", "data=synthetic", "data.size=64",
        "data.image_size=16", "data.classes=3", "search.epochs=2", "search.batch_size=16",
        "retrain.layers=null", "retrain.channels=8", "retrain.epochs=2", "retrain.batch_size=16",
        "export.formats=[standalone,onnx]", "hydra.run.dir=run", "runtime.threads=1",
    )  # fmt: skip
    assert said.code == 0, said.err
    found = json.loads(Path("run/architecture.json").read_text())
    assert sorted(found["choices"]["blocks"]) == ["0-1", "1-2", "2-3", "3-4"]
    assert {len(kept) for kept in found["choices"]["blocks"].values()} == {1}
    assert Path("run/export/model.onnx").exists()  # loaded again and compared before it counts
    alone = subprocess.run(
        [sys.executable, "-I", "-c",
         "import sys, torch; sys.path.insert(0, '.'); import model; net = model.load();"
         "print([m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)][-1],"
         "tuple(net(torch.zeros(2, 3, 16, 16)).shape))"],
        cwd="run/export", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert alone.strip() == "20 (2, 3)"  # 2.5 times 8 channels


@pytest.mark.slow
def test_a_searcher_is_a_class_and_a_yaml(archsmith, outside: Path):
    write(outside / "my_searcher.py", HILL_CLIMBER)
    write(
        outside / "strategy" / "climber.yaml",
        "_target_: my_searcher.HillClimber\n_partial_: true\nasks: 3\npatience: 2\n",
    )
    said = archsmith(
        "--config-dir", str(outside), *TINY, "experiment=paper", "strategy=climber",
        "export.formats=[]", "budget.params=1M", "hydra.run.dir=d",
    )  # fmt: skip
    assert said.code == 0, said.err
    lines = [json.loads(line) for line in Path("d/metrics.jsonl").read_text().splitlines()]
    scores = [line["score"] for line in lines if line["phase"] == "search"]
    assert len(scores) == 3
    results = json.loads(Path("d/results.json").read_text())
    assert results["diagnosis"] == {"score": max(scores), "scored": 3}
    assert results["test_accuracy"] is not None
    files = sorted(Path("d").glob("candidates/*/architecture.json"))
    asked = [json.loads(file.read_text())["choices"] for file in files]
    best = json.loads(Path("d/architecture.json").read_text())
    assert best["choices"] == asked[scores.index(max(scores))]
    assert (best["meta"]["strategy"], best["meta"]["epoch"]) == ("climber", None)
    epochs = Path("d/candidates/002/metrics.jsonl").read_text().splitlines()
    third = Architecture.load(Path("d/candidates/002/architecture.json"))
    assert [json.loads(line)["phase"] for line in epochs] == [f"candidate_{third.identity}"]
