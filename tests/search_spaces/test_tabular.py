import csv
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from archsmith.data.benchmark import Benchmark, accuracy, standing, without_search
from archsmith.errors import DataError
from search_spaces.architecture import Architecture
from search_spaces.conv_macro import conv_macro
from search_spaces.entangled_cell import entangled_cell
from search_spaces.resnets import tas
from search_spaces.space import Space
from search_spaces.tabular import form_of, name_of
from supernets.costs import parameters
from supernets.network import final_network

SHARED = Path(__file__).resolve().parents[2] / os.environ.get("ARCHSMITH_SHARED", "../shared")
TABLES = {name: SHARED / "data" / f"tangle_{name}.csv" for name in ("conv_macro", "cell")}
shared = pytest.mark.skipif(
    not all(path.is_file() for path in TABLES.values()),
    reason="no tables; ARCHSMITH_SHARED names the folder that holds 'data'",
)


def space(**changes) -> Space:
    sizes = dict(channels=8, multiples=[1, 2, 4], kernels=[3, 5, 7], head_channels=256)
    sizes |= dict(hidden=[256, 128, 64], last_kernel=7, norm=False, dropout=0.5)
    return conv_macro(**sizes | dict(input_shape=(3, 32, 32), classes=10) | changes)


def stack(multiples: list[int], kernels: list[int], made: Space) -> Architecture:
    rows = {"width": multiples, "kernel": kernels}
    return Architecture.of(
        made,
        {
            n: {f"{i}-{i + 1}": [f"{n}_{v}"] for i, v in enumerate(values)}
            for n, values in rows.items()
        },
    )


@pytest.mark.parametrize("channels", [8, 2])
def test_a_stack_is_named_by_the_published_widths(channels: int):
    found = stack([4, 4, 4, 2], [3, 7, 5, 7], space(channels=channels))
    assert name_of(found) == "32,64,128,128,3,7,5,7"


def test_a_space_without_tables_is_refused():
    made = tas(depth=8, channels=4, widths=[1], input_shape=(3, 8, 8), classes=2)
    with pytest.raises(ValueError, match="no form of tables for space tas; known: nasbench201"):
        name_of(Architecture.of(made, made.unpruned))


def test_what_a_table_leaves_out_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "t.csv"
    path.write_text("c1,c2,c3,c4,k1,k2,k3,k4,accuracy\n32,64,128,256,5,5,5,5,83.5\n")
    table = Benchmark(str(path), "accuracy", 10).read()
    assert standing(table, stack([4] * 4, [5] * 4, space()))["rank"] == 1
    assert accuracy(table, stack([1] * 4, [3] * 4, space())) == 10.0
    assert "8,16,32,64,3,3,3,3 failed" in caplog.text
    assert without_search(table) == {"the largest network with kernels of 5": [83.5]}


def test_another_column_is_asked_for(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("c1,c2,c3,c4,k1,k2,k3,k4,accuracy\n")
    with pytest.raises(
        DataError, match=r"expected a column 'cifar10', found c1.*benchmark\.column"
    ):
        Benchmark(str(path), "cifar10", 10).read()
    assert form_of(["c1", "accuracy"]) is None


@shared
def test_the_published_tables():
    table = Benchmark(str(TABLES["conv_macro"]), "accuracy", 10).read()
    with open(TABLES["conv_macro"], newline="") as file:
        assert len(list(csv.DictReader(file))) == len(table) == 6547
    best = standing(table, stack([4, 4, 4, 2], [3, 7, 5, 7], space()))
    assert (best["accuracy"], best["rank"]) == (84.41, 1)
    assert standing(table, stack([4] * 4, [5] * 4, space()))["rank"] == 43
    assert without_search(table)["the largest network with kernels of 7"] == [81.50]
    cells = Benchmark(str(TABLES["cell"]), "accuracy", 10).read()
    assert (len(cells), max(cells.values())) == (4096, 91.63)
    assert without_search(cells)["cells of sep_conv_3x3 alone"] == [90.88]


NAMES = ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]


def test_a_cell_is_named_by_the_operations_of_its_edges():
    made = entangled_cell(channels=4, candidates=NAMES, input_shape=(1, 28, 28), classes=10)
    of_edges = dict(
        zip(["0-1", "0-2", "1-2"], [["sep_conv_3x3"], ["dil_conv_5x5"]] * 2, strict=False)
    )
    rest = {edge: ["sep_conv_5x5"] for edge in of_edges}
    found = name_of(Architecture.of(made, {"normal": of_edges, "reduce": rest}))
    assert found == ",".join(
        ["sep_conv_3x3", "dil_conv_5x5", "sep_conv_3x3"] + 3 * ["sep_conv_5x5"]
    )
    only = {name: 80.0 + i for i, name in enumerate([",".join(6 * [n]) for n in NAMES])}
    assert without_search(only)["cells of dil_conv_3x3 alone"] == [82.0]


def test_weights_of_the_published_cells():
    """Without those of batch norms, which the published networks do not have."""
    made = entangled_cell(channels=32, candidates=NAMES, input_shape=(1, 28, 28), classes=10)
    edges = {edge: ["sep_conv_3x3"] for edge in ("0-1", "0-2", "1-2")}
    net = final_network(made, Architecture.of(made, {"normal": edges, "reduce": edges}))
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    norms = (m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert parameters(net) - sum(map(parameters, norms)) == 198_826
