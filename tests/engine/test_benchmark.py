from pathlib import Path

import pytest

from engine.errors import DataError
from engine.search.benchmark import Benchmark, look_up, standing
from engine.search.ranking import _tau
from search_spaces.genotype import from_nasbench201
from search_spaces.space import Space


def cell(*names: str) -> str:
    a, b, c, d, e, f = names
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


CONV = cell(*["nor_conv_3x3"] * 3, "skip_connect", *["nor_conv_3x3"] * 2)
SKIP = cell(*["skip_connect"] * 6)
POOL = cell("none", "avg_pool_3x3", "none", "none", "none", "avg_pool_3x3")


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    path = tmp_path / "table.csv"
    path.write_text(f"architecture,cifar10\n{CONV},94.0\n{SKIP},54.5\n{POOL},70.25\n")
    return Benchmark(str(path), "cifar10", 10)


def test_rank_and_regret_by_hand(benchmark: Benchmark, toy_nasbench201: Space):
    found = standing(benchmark.read(), from_nasbench201(POOL, toy_nasbench201))
    assert (found["accuracy"], found["rank"], found["of"], found["regret"]) == (70.25, 2, 3, 23.75)


def test_a_curve_over_the_epochs(benchmark: Benchmark, toy_nasbench201: Space, tmp_path: Path):
    for i, text in enumerate((SKIP, POOL, CONV)):
        one = from_nasbench201(text, toy_nasbench201)
        one.save(tmp_path / "architectures" / f"epoch_{i:03d}.json")
    one.save(tmp_path / "architecture.json")
    found = look_up(benchmark, tmp_path)
    assert found["accuracy_by_epoch"] == [54.5, 70.25, 94.0]
    assert (found["rank"], found["regret"]) == (1, 0.0)
    assert (tmp_path / "benchmark.json").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,cifar10\n", "'architecture' and 'cifar10', found name, cifar10"),
        (f"architecture,cifar10\n{CONV},high\n", "line 2: 'high' in column 'cifar10' is no number"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str, message: str):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Benchmark(str(path), "cifar10", 10).read()


def test_an_architecture_the_table_lacks(benchmark: Benchmark, toy_nasbench201: Space):
    other = from_nasbench201(SKIP.replace("skip_connect~2", "none~2"), toy_nasbench201)
    with pytest.raises(DataError, match="does not hold"):
        standing(benchmark.read(), other)


def test_tau_by_hand():
    assert _tau([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert _tau([1, 2, 3, 4], [40, 30, 20, 10]) == pytest.approx(-1.0)
    assert _tau([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(4 / 6)
    assert _tau([1, 1, 1], [1, 2, 3]) == 0.0
