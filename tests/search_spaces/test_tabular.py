import csv
from pathlib import Path

import pytest

from archsmith.data.benchmark import Benchmark, accuracy, standing, without_search
from archsmith.errors import DataError
from search_spaces.architecture import Architecture
from search_spaces.conv_macro import conv_macro
from search_spaces.resnets import tas
from search_spaces.space import Space
from search_spaces.tabular import form_of, name_of

TABLE = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "tangle_conv_macro.csv"
shared = pytest.mark.skipif(not TABLE.is_file(), reason=f"there is no {TABLE.name}")


def space(**changes) -> Space:
    sizes = dict(channels=8, multiples=[1, 2, 4], kernels=[3, 5, 7], head_channels=256)
    sizes |= dict(hidden=[256, 128, 64], last_kernel=7, norm=False)
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
def test_the_published_table():
    table = Benchmark(str(TABLE), "accuracy", 10).read()
    with open(TABLE, newline="") as file:
        assert len(list(csv.DictReader(file))) == len(table) == 6547
    best = standing(table, stack([4, 4, 4, 2], [3, 7, 5, 7], space()))
    assert (best["accuracy"], best["rank"]) == (84.41, 1)
    assert standing(table, stack([4] * 4, [5] * 4, space()))["rank"] == 43
    assert without_search(table)["the largest network with kernels of 7"] == [81.50]
