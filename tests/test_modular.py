"""`space=modular` on the command line: searched by searchers, refused to gradient strategies."""

import json
from pathlib import Path

import pytest
import torch
from test_command_line import line_of
from test_docs import code

from archsmith.result.export.standalone import standalone
from search_spaces.architecture import Architecture
from search_spaces.decisions import count
from search_spaces.programs import PROGRAM, modular
from strategies.searchers.random import RandomSearch
from supernets.network import final_network

TINY = [
    "space=modular", "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3",
    "space.layers=2", "space.channels=4", "search.epochs=1", "retrain.layers=2",
    "retrain.channels=4", "retrain.epochs=1", "retrain.batch_size=16", "runtime.threads=1",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["strategy=darts"],
            "archsmith: space: modular has no supernet, which strategy darts trains; set "
            "strategy=random or another searcher, or another space",
        ),
        (
            ["strategy=random", "budget.macs=1M"],
            "archsmith: budget: costs of options do not add up in space modular; ",
        ),
        (
            ["strategy=random", "retrain.auxiliary_weight=0.4"],
            "archsmith: space modular has no auxiliary head; retrain with auxiliary_weight=0.0",
        ),
        (
            ["strategy=random", "retrain.drop_path=0.2"],
            "archsmith: retrain.drop_path: expected 0 in space modular, ",
        ),
        (
            ["strategy=random", "retrain.layers=3"],
            "archsmith: retrain.layers: 3, but every layer of space modular decides for itself, ",
        ),
        (
            ["strategy=random", "space.kernels=[2]"],
            "archsmith: space.kernels: expected odd numbers, found 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused(archsmith, overrides, said):
    found = archsmith(*TINY, *overrides)
    assert found.code == 2
    assert line_of(found).startswith(said)


@pytest.mark.slow
def test_a_searched_module_is_retrained_and_exported(archsmith, tmp_path: Path):
    found = archsmith(*TINY, "strategy=random", "strategy.asks=2", "export.formats=[standalone]")
    assert found.code == 0, found.err
    (folder,) = (tmp_path / "outputs").iterdir()
    results = json.loads((folder / "results.json").read_text())
    assert results["diagnosis"]["scored"] == 2
    assert (folder / "export" / "model.py").is_file()
    assert "strategy=random,darts" not in found.out
    (cell,) = folder.glob("cell_*.svg")
    assert cell.name == "cell_program.svg"


def test_the_exported_text_needs_torch_alone_and_builds_the_network():
    """With every kind of layer: a residual of two units with batch norm and dropout, and a pool."""
    space = modular(
        layers=2, channels=4, widths=[1, 2], kernels=[3], rates=[0.1], units=[1, 2],
        input_shape=(1, 8, 8), classes=3,
    )  # fmt: skip
    last = {row.name: (row.names[-1],) for row in space.program.rows}
    last["layer[0]/kind"] = ("residual",)
    found = Architecture.of(space, {PROGRAM: last})
    facts = dict(
        classes=["a", "b", "c"], mean=[0.5], std=[0.5], resize="none", input_shape=[1, 8, 8]
    )
    made: dict = {"__name__": "model", "__file__": "model.py"}
    exec(standalone(space, found, facts | {"parameters": 1, "macs": 1}), made)
    exported, net = made["build"](), final_network(space, found)
    exported.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(exported.eval()(x), net.eval()(x), rtol=0, atol=0)


def test_the_program_of_the_documentation_is_a_space():
    """2 first widths, and per block 2 kinds x 2 widths x 2 kernels x 2 orders x 2 norms."""
    mine = code("own_spaces.md", "from search_spaces.language")["mine"]
    space = mine(channels=4, input_shape=(1, 8, 8), classes=3)
    assert count(space.program.module) == 2 * (32 + 32**2 + 32**3)
    net = final_network(space, RandomSearch(space).ask())
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 3)
