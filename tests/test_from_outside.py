"""Strategies, searchers, spaces and operations come from outside the packages, by configuration."""

import json
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
from strategies.searchers.random import RandomSearch
from supernets.network import final_network, supernet

CONF = Path(__file__).resolve().parents[1] / "conf"
SHAPES = dict(input_shape=(3, 16, 16), classes=10)
SIZES = ["space.layers=3", "space.nodes=2", "space.channels=8"]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch) -> Path:
    """A folder of the user's, importable and on the configuration's search path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_ops", "my_space", "my_relaxation", "my_searcher"):
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
        from search_spaces.darts import CANDIDATES
        from search_spaces.space import Cell, Layer, Space, complete_edges

        def line(*, length, channels, input_shape, classes, operations=None):
            edges = complete_edges(1, length, list(CANDIDATES))
            cell = Cell(1, length, edges, keep=1, output="last")
            settings = dict(length=length, channels=channels)
            settings |= dict(input_shape=input_shape, classes=classes)
            return Space(
                name="line",
                family=line,
                settings=settings,
                cells={"line": cell},
                layers=(Layer("line", "line", channels, reduction=False),) * 2,
                operations=CANDIDATES,
                input_shape=tuple(input_shape),
                classes=classes,
                stem="plain",
                stem_channels=channels,
                preprocess=False,
                head="pool_linear",
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


HILL_CLIMBER = """\
import torch

from search_spaces.architecture import Architecture
from strategies.contracts import Searcher
from strategies.searchers.random import random_cell


class HillClimber(Searcher):
    def __init__(self, space, *, asks, patience):
        super().__init__(space, asks)
        self.patience, self.best = patience, None
        self.generator = torch.Generator().manual_seed(0)

    def ask(self):
        cells = self.space.groups
        new = {name: random_cell(cell, self.generator) for name, cell in cells.items()}
        if self.best is not None:  # only one group changes
            (first, *_) = cells
            new = self.best[1].choices | {first: new[first]}
        return Architecture.of(self.space, new)

    def tell(self, architecture, score):
        if self.best is None or score > self.best[0]:
            self.best = score, architecture
"""


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
    assert [json.loads(line)["phase"] for line in epochs] == ["candidate"]
