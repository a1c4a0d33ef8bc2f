"""Budgets of milliseconds on another device, by a table of options or of whole architectures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from latencies import OPTIONS, every, small, sums, written
from test_command_line import line_of
from test_every_config import composed, make

from archsmith.errors import ConfigError
from archsmith.result.fit import Fit
from archsmith.result.limits import Budget
from search_spaces.genotype import to_nasbench201
from search_spaces.mbconv import mbconv
from search_spaces.space import Space
from supernets.final_costs import Site, cost_tables
from supernets.latency_table import fixed_site, latency_cost
from supernets.latency_table import written as table_of

CPU = torch.device("cpu")
RECIPE = replace(make(composed().retrain), layers=None, channels=None, auxiliary_weight=0.0)
MBCONV = ["skip_connect", "mbconv_3x3_e3", "mbconv_3x3_e6", "mbconv_5x5_e3"]


def chain() -> Space:
    return mbconv(
        layers=4, channels=4, widths=[1], strides=[1], ends=[1, 1], candidates=MBCONV,
        input_shape=(3, 8, 8), classes=2,
    )  # fmt: skip


def options(space: Space, path: Path) -> Path:
    """A table in which no two options cost the same."""
    seen = {fixed_site(space): 1.7}

    def cost(site: Site) -> float:
        seen[site] = 0.1 + 0.37 * len(seen)
        return seen[site]

    cost_tables(space, cost)
    path.write_text(table_of((site, {"median_ms": ms}) for site, ms in seen.items()))
    return path


def strategy(space: Space, seed: int = 0, name: str = "darts"):
    torch.manual_seed(seed)
    found = make(composed(f"strategy={name}").strategy, space=space)
    if name == "darts":
        for alphas in found.alphas.values():
            with torch.no_grad():
                alphas.normal_()
    return found


@pytest.mark.parametrize("name", ["darts", "random"])
def test_a_table_of_options_is_kept_to_exactly(tmp_path: Path, name: str, monkeypatch):
    """Nothing is measured; of a gradient search the programme takes the best that fits."""
    monkeypatch.setattr(Fit, "latency", lambda *_: pytest.fail("measured"))
    space = chain()
    path = options(space, tmp_path / "t.csv")
    cost = latency_cost(space, path)
    draws = strategy(space, name="random")
    limits = sorted(cost.of(draws.ask(), space) for _ in range(5))
    for limit in limits:  # each is met exactly by an architecture
        fit = Fit(Budget(latency_ms=limit, latency_table=str(path)), space, RECIPE, CPU)
        searching = strategy(space, seed=3, name=name)
        fit.check_possible(searching)
        found = None if name == "random" else searching.architecture()
        chosen = fit.choose(searching, found, [])
        assert fit.cost(chosen)["latency_ms"] == cost.of(chosen, space) <= limit * (1 + 1e-9)
        if name == "darts":
            assert _score(searching, chosen) == pytest.approx(_best(searching, cost, limit))


def _score(searching, architecture) -> float:
    """The sum of the log gates of what an architecture keeps."""
    gates, total = searching.gates(), 0.0
    for name, rows in architecture.kept(searching.space).items():
        total += sum(float(gates[name][r, o].log()) for r, kept in enumerate(rows) for o in kept)
    return total


def _best(searching, cost, limit: float) -> float:
    """The best score within a limit, of all architectures."""
    from itertools import product

    from search_spaces.architecture import Architecture

    space, found = searching.space, []
    rows = space.choices["blocks"].rows
    for names in product(*(row.names for row in rows)):
        kept = {row.name: (n,) for row, n in zip(rows, names, strict=True)}
        one = Architecture.of(space, {"blocks": kept})
        if cost.of(one, space) <= limit * (1 + 1e-9):
            found.append(_score(searching, one))
    return max(found)


def test_a_limit_below_the_fastest_network_is_refused_with_its_latency(tmp_path: Path):
    space = chain()
    path = options(space, tmp_path / "t.csv")
    fit = Fit(Budget(latency_ms=0.5, latency_table=str(path)), space, RECIPE, CPU)
    with pytest.raises(ConfigError, match=r"budget\.latency_ms: the smallest network .* takes "):
        fit.check_possible(strategy(space))


@pytest.mark.parametrize("name", ["darts", "random", "nsga2"])
def test_whole_architectures_are_looked_up(tmp_path: Path, name: str, monkeypatch):
    monkeypatch.setattr(Fit, "latency", lambda *_: pytest.fail("measured"))
    space = small(OPTIONS)
    path = str(written(tmp_path / "t.csv", space))
    budget = Budget(latency_ms=4.6, latency_table=path, latency_device="phone")
    fit = Fit(budget, space, RECIPE, CPU)
    searching = strategy(space, name=name)
    fit.check_possible(searching)
    found = strategy(space).architecture() if name == "darts" else None
    chosen = fit.choose(searching, found, [])
    assert fit.cost(chosen)["latency_ms"] == sums(chosen) <= 4.6
    slow = every(space)[-1]
    assert fit.exceeded(slow) == ["latency_ms"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latency_device": "phome"}, r"^budget\.latency_device: 'phome' .* did you mean 'phone'"),
        ({}, r"^budget\.latency_device: .* has several, name one of phone, watch"),
        ({"latency_table": "none.csv"}, r"^budget\.latency_table: none\.csv is no table of lat"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, given, message: str):
    space = small()
    path = str(written(tmp_path / "t.csv", space))
    budget = Budget(**{"latency_ms": 1.0, "latency_table": path} | given)
    with pytest.raises(ConfigError, match=message):
        Fit(budget, space, RECIPE, CPU)


CELLS = [
    "space=nasbench201", "space.layers=5", "space.channels=4", "data=synthetic", "data.size=48",
    "data.image_size=8", "data.classes=3", "runtime.threads=1", "task=search",
    "space.candidates=[none,skip_connect,nor_conv_3x3]",
]  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    space = small(OPTIONS)
    path = written(tmp_path / "latency.csv", space)
    lines = [f"{to_nasbench201(one)},{50 + 5 * sums(one)}" for one in every(space)]
    (tmp_path / "accuracy.csv").write_text("\n".join(["architecture,cifar10", *lines, ""]))
    return path


def test_one_search_writes_a_front_per_device(archsmith, table: Path):
    """The files, and what the page says of them."""
    said = archsmith(
        *CELLS, "strategy=pareto", "strategy.asks=40", "strategy.initial=20", "strategy.steps=10",
        "search.score=table", f"benchmark.table={table.parent / 'accuracy.csv'}",
        f"budget.latency_table={table}", "hydra.run.dir=found",
    )  # fmt: skip
    assert said.code == 0, said.err
    fronts = json.loads(Path("found/fronts.json").read_text())["devices"]
    assert list(fronts) == ["phone", "watch"]
    assert fronts["phone"]["r2"] == pytest.approx(1.0)
    lines = Path("found/fronts.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(len(one["points"]) for one in fronts.values())
    for front in fronts.values():
        costs = [one["cost"] for one in front["points"]]
        scores = [one["score"] for one in front["points"]]
        assert costs == sorted(costs)
        assert scores == sorted(scores)
        for one in front["points"]:
            kept = json.loads((Path("found") / one["architecture"]).read_text())
            assert kept["meta"]["score"] == one["score"]
    page = Path("found/report.html").read_text()
    assert "The front of each device" in page


@pytest.mark.slow
def test_one_supernet_writes_a_front_per_device(archsmith, table: Path):
    """Of the architectures of all preferences, measured with its weights and looked up."""
    said = archsmith(
        *CELLS, "strategy=pareto_gates", "search.epochs=2", "search.batch_size=16",
        f"budget.latency_table={table}", "hydra.run.dir=found",
    )  # fmt: skip
    assert said.code == 0, said.err
    series = json.loads(Path("found/pareto.json").read_text())["points"]
    accuracies = {one["identity"]: one["discretised_accuracy"] for one in series}
    fronts = json.loads(Path("found/fronts.json").read_text())["devices"]
    assert list(fronts) == ["phone", "watch"]
    for front in fronts.values():
        assert front["points"]
        assert all(one["score"] == accuracies[one["identity"]] for one in front["points"])
    assert "The front of each device" in Path("found/report.html").read_text()


def test_an_unknown_device_ends_the_run_in_one_line(archsmith, table: Path):
    said = archsmith(
        *CELLS, "strategy=nsga2", "search.score=table", "budget.latency_device=phome",
        f"benchmark.table={table.parent / 'accuracy.csv'}", f"budget.latency_table={table}",
    )  # fmt: skip
    assert said.code == 2
    assert "strategy.device: 'phome' is no column of" in line_of(said)
    assert "did you mean 'phone'" in line_of(said)
