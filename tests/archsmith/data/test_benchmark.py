from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from archsmith.data.benchmark import Benchmark, look_up, standing
from archsmith.errors import DataError
from archsmith.search.ranking import kendall_tau, rank_correlation
from search_spaces.architecture import Architecture
from search_spaces.genotype import from_nasbench201
from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from supernets.mixture import Mixture


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
        (
            "name,cifar10\n",
            "columns architecture or c1.*, which name an architecture, found name, cifar10",
        ),
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
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert kendall_tau([1, 2, 3, 4], [40, 30, 20, 10]) == pytest.approx(-1.0)
    assert kendall_tau([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == 0.0
    # of 6 pairs, 3 agree, 1 does not, 1 is equal here and 1 there: 2 / sqrt(5 * 5)
    assert kendall_tau([1, 1, 2, 3], [1, 4, 2, 4]) == pytest.approx(2 / 5)


class Colour(nn.Module):
    """Says class 0 as often as the table's accuracy of a network: 94, 54 and 70 images of 100."""

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        (group,) = mixture.groups.values()
        runs = [candidate for row in group.active for candidate in row]
        right = {16: 94, 6: 54, 8: 70}[sum(runs)]  # positions: skips 1, convolutions 3, pools 4
        return torch.stack([(x < right).float(), (x >= right).float()], 1)


def test_d1_ranking_goes_up_where_the_supernet_ranks_as_the_table_does(
    benchmark: Benchmark, toy_nasbench201: Space, monkeypatch
):
    """`task=rank`: architectures are drawn, measured on `select`, and looked up."""
    texts = [CONV, SKIP, POOL] * 4
    drawn = [from_nasbench201(text, toy_nasbench201) for text in texts]
    monkeypatch.setattr(RandomSearch, "ask", lambda self: drawn.pop())
    asked: list[Architecture] = []

    def of(architecture: Architecture, space: Space, device: torch.device) -> Mixture:
        asked.append(architecture)
        return real(architecture, space, device)

    real = Mixture.of
    monkeypatch.setattr(Mixture, "of", of)
    net = Colour()
    net.weight = nn.Parameter(torch.zeros(1))  # type: ignore[assignment]
    select = [(torch.arange(100.0), torch.zeros(100).long())]
    roles = SimpleNamespace(select=select, statistics=[])
    found = rank_correlation(net, toy_nasbench201, roles, benchmark, 0)  # type: ignore[arg-type]
    assert found == {"kendall_tau": pytest.approx(1.0), "samples": 10, "column": "cifar10"}
    assert [one.identity for one in asked[:3]] == [
        from_nasbench201(text, toy_nasbench201).identity for text in (POOL, SKIP, CONV)
    ]
