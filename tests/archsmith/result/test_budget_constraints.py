"""Budgets as hard constraints on the network that is retrained."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_command_line import TINY, line_of
from test_every_config import composed, make

from archsmith.errors import ConfigError
from archsmith.result import fit as fitting
from archsmith.result.fit import Fit, given_up
from archsmith.result.latency import Latency, measure_latency
from archsmith.result.limits import Budget, shown_amount
from archsmith.result.network import final_space
from archsmith.train.random_state import random_state
from search_spaces.architecture import Architecture
from search_spaces.darts import darts
from search_spaces.goldnas import goldnas
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space
from strategies.searchers.searcher import Searcher
from supernets.costs import macs, parameters
from supernets.network import final_network

CPU = torch.device("cpu")
RECIPE = replace(make(composed().retrain), layers=None, channels=6, auxiliary_weight=0.4)
SHAPES = dict(layers=3, nodes=2, channels=4, input_shape=(1, 8, 8), classes=3)


def toy(name: str) -> Space:
    if name == "darts":
        names = ["none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"]
        return darts(**SHAPES, candidates=names)
    if name == "goldnas":
        return goldnas(**SHAPES, candidates=["skip_connect", "sep_conv_3x3"])
    names = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"]
    return nasbench201(**SHAPES | dict(layers=5, nodes=3), candidates=names)


def strategy_of(name: str, space: Space, seed: int = 0):
    torch.manual_seed(seed)
    found = make(composed(f"strategy={name}").strategy, space=space)
    if not isinstance(found, Searcher):
        with torch.no_grad():
            for alphas in found.alphas.values():
                alphas.normal_()
    return found


def sizes(space: Space, architecture: Architecture, recipe=RECIPE) -> dict[str, int]:
    with torch.device("meta"):
        net = final_network(final_space(space, recipe), architecture, auxiliary=True)
    return {"params": parameters(net), "macs": macs(net)}


@pytest.mark.parametrize(
    ("value", "amount"),
    [("1.5M", 1.5e6), ("300k", 3e5), ("2G", 2e9), (1000, 1000.0), ("1e6", 1e6), (2.5e5, 2.5e5)],
)
def test_amounts(value, amount: float):
    assert Budget(params=value).limits == {"params": amount}


@pytest.mark.parametrize("value", ["x", "1.5T", -1, 0, True, "M", ".", "1 2", [1]])
def test_what_is_no_amount_is_refused(value):
    with pytest.raises(ValueError, match=r"^macs: expected a number, or one as 300k"):
        Budget(macs=value)


def test_milliseconds_take_no_unit():
    assert Budget(latency_ms=1.5).limits == {"latency_ms": 1.5}
    with pytest.raises(ValueError, match=r"^latency_ms: expected milliseconds"):
        Budget(latency_ms="1k")
    with pytest.raises(ValueError, match=r"^latency_batch"):
        Budget(latency_batch=0)


def test_a_limit_that_is_proposed_can_be_met():
    for amount in (1, 999, 1000, 24_934, 381_600, 1_234_567, 2.5e9, 99_999):
        assert Budget(params=shown_amount("params", amount)).params >= amount
    macs = [shown_amount("macs", n) for n in (24_934, 381_600, 1_234_567)]
    assert macs == ["25k", "382k", "1.24M"]
    assert shown_amount("latency_ms", 0.8012) == "0.81"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("darts", "darts"),
        pytest.param("darts", "nasbench201", marks=pytest.mark.slow),
        pytest.param("random", "nasbench201", marks=pytest.mark.slow),
        pytest.param("random", "darts", marks=pytest.mark.slow),
        pytest.param("snas", "darts", marks=pytest.mark.slow),
        pytest.param("snas", "nasbench201", marks=pytest.mark.slow),
    ],
)
def test_the_network_that_is_retrained_keeps_to_the_budget(name: str, space: str):
    space = toy(space)
    strategy = strategy_of(name, space)
    found = None if isinstance(strategy, Searcher) else strategy.architecture()
    cheap = Fit(Budget(), space, RECIPE, CPU)
    structures = strategy.structures()
    for kind in ("params", "macs"):
        least = sizes(space, cheap.cheapest(kind, structures))[kind]
        draws = (strategy_of("random", space, seed).ask() for seed in range(10))
        most = max(cheap.cost(one)[kind] for one in draws)
        for share in (0.1, 0.6):
            limit = round(least + share * (most - least))
            fit = Fit(Budget(**{kind: limit}), space, RECIPE, CPU)
            fit.check_possible(strategy_of(name, space))
            chosen = fit.choose(strategy, found, [])
            assert sizes(space, chosen)[kind] <= limit
            assert fit.cost(chosen) == sizes(space, chosen)
        fit = Fit(Budget(**{kind: 10 * most}), space, RECIPE, CPU)
        chosen = fit.choose(strategy_of(name, space), found, [])
        without = strategy_of(name, space)
        assert chosen == (without.ask() if found is None else without.architecture())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "kind"),
    [
        ("goldnas", "params"),
        pytest.param("goldnas", "macs", marks=pytest.mark.slow),
        pytest.param("darts", "params", marks=pytest.mark.slow),
        pytest.param("darts", "macs", marks=pytest.mark.slow),
        pytest.param("nasbench201", "params", marks=pytest.mark.slow),
        pytest.param("nasbench201", "macs", marks=pytest.mark.slow),
    ],
)
def test_an_impossible_budget_is_refused_with_sizes_that_fit(space: str, kind: str):
    space = toy(space)
    recipe = replace(RECIPE, layers=None if space.name == "goldnas" else 8)
    strategy = strategy_of("goldnas" if space.name == "goldnas" else "darts", space)

    def refused(budget: Budget, recipe) -> str | None:
        try:
            Fit(budget, space, recipe, CPU).check_possible(strategy)
        except ConfigError as error:
            return str(error)
        return None

    least = int(
        re.search(r"has ([\d,]+)", refused(Budget(**{kind: 1}), recipe))[1].replace(",", "")
    )
    budget = Budget(**{kind: 0.9 * least})
    said = refused(budget, recipe)
    assert said.startswith(f"budget.{kind}: the smallest network of this space and recipe has")
    remedies = re.findall(r"retrain\.(\w+)=(\d+)", said)
    both = {"channels", "layers"} if space.name == "darts" else {"channels"}
    assert {name for name, _ in remedies} == both  # skips cost a nasbench201 cell nothing
    for name, value in remedies:  # it fits, and one more does not
        assert refused(budget, replace(recipe, **{name: int(value)})) is None
        assert refused(budget, replace(recipe, **{name: int(value) + 1})) is not None
    (enough,) = re.findall(rf"budget\.{kind}=(\S+)$", said)
    assert refused(Budget(**{kind: enough}), recipe) is None


@pytest.mark.slow
def test_a_pruning_strategy_takes_the_best_of_its_series_that_fits():
    space = toy("goldnas")
    strategy = strategy_of("goldnas", space)
    draws = [strategy_of("random", space, seed).ask() for seed in range(6)]
    draws.sort(key=lambda one: -sizes(space, one)["macs"])
    limit = sizes(space, draws[2])["macs"]
    fit = Fit(Budget(macs=limit), space, RECIPE, CPU)
    first = next(one for one in draws if sizes(space, one)["macs"] <= limit)
    assert fit.choose(strategy, draws[-1], draws) == first
    with pytest.raises(ConfigError, match="no architecture that the search can end with fits"):
        fit.choose(strategy, draws[0], draws[:1])


@pytest.mark.slow
def test_latency_is_that_of_the_whole_network_as_measured(monkeypatch):
    """Each convolution takes 1 ms, each other candidate nothing: at most two are left."""
    space = toy("darts")
    strategy = strategy_of("darts", space)

    def convolutions(net) -> int:
        return sum("Conv" in type(op).__name__ for op in net.layers[0].modules()) // 2

    def measured(net, device, batch) -> Latency:
        ms = float(convolutions(net))
        return Latency(ms, ms, ms, 1, batch)

    monkeypatch.setattr(fitting, "measure_latency", measured)
    found = strategy.architecture()
    free = measured(final_network(space, found), CPU, 1).median
    least = Fit(Budget(latency_ms=1), space, RECIPE, CPU)
    low = least.cost(least.cheapest("macs", strategy.structures()))["latency_ms"]
    assert low < free
    fit = Fit(Budget(latency_ms=(low + free) / 2), space, RECIPE, CPU)
    chosen = fit.choose(strategy, found, [])
    assert fit.cost(chosen)["latency_ms"] <= (low + free) / 2
    assert chosen != found


@pytest.mark.slow
def test_measuring_moves_no_random_stream():
    space = toy("darts")
    before = random_state()
    fit = Fit(Budget(latency_ms=1e-6), space, RECIPE, CPU)
    architecture = strategy_of("random", space).ask()
    state = torch.get_rng_state()
    assert fit.exceeded(architecture) == ["latency_ms"]
    assert fit.guide.tables["normal"].sum() > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert random_state()["python"] == before["python"]
    told = measure_latency(final_network(fit.final, architecture), CPU, 2)
    assert 0 < told.low <= told.median <= told.high
    assert (told.batch, told.repeats >= 20) == (2, True)


def test_what_was_given_up():
    space = toy("darts")
    pair = [
        Architecture.of(space, {g: {"0-2": [a], "1-2": ["skip_connect"]} for g in space.groups})
        for a in ("sep_conv_3x3", "skip_connect")
    ]
    gates = {n: torch.full((len(c.edges), 5), 0.2) for n, c in space.groups.items()}
    gates["reduce"][0, 3] = 0.5
    assert given_up(space, *pair, gates) == [
        {"choice": name, "row": "0-2", "was": {"sep_conv_3x3": gate}, "is": {"skip_connect": 0.2}}
        for name, gate in (("normal", 0.2), ("reduce", 0.5))
    ]


def test_an_impossible_budget_is_one_line_before_the_search(archsmith, tmp_path: Path):
    small = [*TINY, "space.candidates=[skip_connect,sep_conv_3x3]", "task=search"]
    said = archsmith(*small, "strategy=random", "budget.macs=1k")
    assert (said.code, Path("outputs").exists()) == (2, True)
    assert "smallest network" in line_of(said)
    assert not list(tmp_path.rglob("results.json"))  # nothing was begun


@pytest.mark.slow
def test_a_search_within_a_budget_and_an_architecture_beyond_it(archsmith):
    small = [*TINY, "space.candidates=[skip_connect,sep_conv_3x3]", "task=search"]
    assert archsmith(*small, "hydra.run.dir=free").code == 0
    assert archsmith(*small, "hydra.run.dir=kept", "budget.params=2k").code == 0
    results = json.loads(Path("kept/results.json").read_text())
    told = results["budget"]
    assert told["cost"]["params"] <= 2000 == told["limits"]["params"]
    kept = Architecture.load(Path("kept/architecture.json"))
    free = Architecture.load(Path("free/architecture.json"))
    assert (kept != free) == bool(told.get("given_up"))
    assert "The budget" in Path("kept/report.html").read_text()

    dear = Path("dear.json")
    choices = {g: {e: ["sep_conv_3x3"] for e in ("0-2", "1-2")} for g in ("normal", "reduce")}
    dear.write_text(json.dumps(json.loads(free.to_json()) | {"choices": choices}))
    said = archsmith(*TINY, f"architecture={dear}", "budget.macs=30k", "task=retrain")
    assert said.code == 2
    assert "budget.macs: the given architecture's network has" in line_of(said)
