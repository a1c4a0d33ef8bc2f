"""Whole runs that make a trained network narrower, and its budget."""

import json
from pathlib import Path

import pytest
import torch
from test_command_line import TINY, line_of
from test_every_config import composed, make

from archsmith.errors import ConfigError
from archsmith.phases import final
from archsmith.result.fit_rising import RisingFit
from archsmith.result.limits import Budget
from archsmith.result.profile import profile, profile_lines
from search_spaces.architecture import Architecture
from search_spaces.from_model import WIDTH, FromModelSpace, from_model
from strategies.searchers.random import RandomSearch
from supernets.network import final_network

CPU = torch.device("cpu")
RECIPE = make(composed("space=from_model").retrain)
SHRINK = [
    *(one for one in TINY if not one.startswith(("space.", "retrain.layers", "retrain.channels"))),
    *(
        "space=from_model",
        "space.model=small_networks:residual",
        "space.divisor=1",
        "data.channels=1",
    ),
    "strategy=shrink",
]


def space() -> FromModelSpace:
    sizes = {"weights": None, "divisor": 1, "most": 8, "importance": "l2"}
    shapes = {"input_shape": (1, 8, 8), "classes": 3}
    return from_model(model="small_networks:residual", **sizes, **shapes)


def fit(**limits) -> RisingFit:
    return RisingFit(Budget(**limits), space(), RECIPE, CPU)


class Gates:
    """A strategy that knows nothing: all options are equal."""

    def gates(self) -> dict[str, torch.Tensor]:
        choice = space().choices[WIDTH]
        return {WIDTH: torch.full((len(choice.rows), choice.width), 1 / choice.width)}


def test_gates_decide_which_group_is_narrower():
    """Row 1 is the inner width of the first block."""
    full, found = fit().network_at(1), fit(macs=0.5 * fit().cost(fit().network_at(1))["macs"])
    for wanted in (0, 7):
        table = Gates().gates()[WIDTH]
        table[1] = 0.01
        table[1, wanted] = 0.93
        strategy = Gates()
        strategy.gates = lambda table=table: {WIDTH: table}  # type: ignore[method-assign]
        start = found._options(full)
        start[WIDTH][1] = wanted
        chosen = found.choose(strategy, found._architecture(start), [])
        options = found._options(chosen)[WIDTH]
        assert options[1] == wanted


@pytest.mark.parametrize(("second", "raised"), [(0.4, True), (0.1, False)])
def test_room_is_used_where_gates_are_undecided(second: float, raised: bool):
    """Also if what was found fits: row 1 is 4 wide, and may be 8 wide if its gate is near."""
    table = Gates().gates()[WIDTH]
    table[[0, 2, 3, 4], 0], table[1, [3, 7]] = 10.0, torch.tensor([0.5, second])
    strategy = Gates()
    strategy.gates = lambda: {WIDTH: table}  # type: ignore[method-assign]
    full = fit()._options(fit().network_at(0))
    full[WIDTH][1] = 3
    found = fit()._architecture(full)
    cost = fit().cost(found)["macs"]
    chosen = fit(macs=2 * cost).choose(strategy, found, [])
    assert fit()._options(chosen)[WIDTH] == [0, 7 if raised else 3, 0, 0, 0]
    assert fit(latency_ms=1e6).choose(strategy, found, []) == found


def test_from_model_10_a_budget_outside_the_ends_names_both():
    low, high = (fit().cost(fit().network_at(share))["macs"] for share in (0, 1))
    for limit in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=rf"^budget\.macs: .*{low:,} to {high:,} multiply"):
            fit(macs=limit).check_possible(None)
    fit(macs=low).check_possible(None)
    fit(macs=high).check_possible(None)


def test_from_model_10_before_any_training(archsmith, tmp_path: Path):
    said = archsmith(*SHRINK, "budget.macs=1G", f"hydra.run.dir={tmp_path / 'run'}")
    assert said.code == 2
    assert "budget.macs: 1G is outside of what networks of this space have" in line_of(said)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_what_is_chosen_fits_and_uses_the_budget(share: float):
    full = fit().network_at(1)
    limit = share * fit().cost(full)["macs"]
    found = fit(macs=limit)
    chosen = found.choose(Gates(), full, [])
    spent = found.cost(chosen)["macs"]
    assert spent <= limit
    assert spent >= 0.6 * limit  # the stream of 1 or 2 channels is a large step


def test_a_searcher_that_never_fits_is_lowered():
    torch.manual_seed(0)
    low = fit().cost(fit().network_at(0))["macs"]
    found = fit(macs=low * 1.3)
    assert not found.exceeded(found.choose(RandomSearch(space()), None, []))


def test_the_profile_has_the_costs_of_the_networks():
    told = profile(space(), RECIPE, CPU)
    given = space()
    net = final_network(given, Architecture.of(given, given.unpruned))
    assert told["groups"] == 5
    assert told["architectures"] == 8 * 8 * 4 * 8 * 4
    largest = told["networks"]["largest"]
    assert largest["params"] == sum(p.numel() for p in net.parameters())
    assert f"budget.params {told['networks']['smallest']['params']:,}" in profile_lines(told)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["shrink", "gdas", "drnas", "annealed"])
def test_a_run_shrinks_and_exports(archsmith, tmp_path: Path, strategy: str):
    how = [f"strategy={strategy}", "strategy.weight_optimizer.lr=0", "strategy.min_lr=0"]
    given = [*SHRINK[:-1], *how, "budget.macs=60k", "export.formats=[standalone,onnx,pt2]"]
    assert archsmith(*given, f"hydra.run.dir={tmp_path}").code == 0
    forms = json.loads((tmp_path / "export" / "export.json").read_text())["forms"]
    assert forms["standalone"]["max_abs_difference"] == 0.0
    assert "file" in forms["onnx"]
    assert "file" in forms["pt2"]
    assert json.loads((tmp_path / "results.json").read_text())["macs"] <= 60_000


@pytest.mark.slow
def test_evolution_inherits_the_trained_weights(archsmith, tmp_path: Path):
    how = ["strategy=evolution", "strategy.asks=3", "search.score=inherited", "budget.macs=60k"]
    given = [*SHRINK[:-1], *how, "task=search", f"hydra.run.dir={tmp_path}"]
    assert archsmith(*given).code == 0
    assert (tmp_path / "architecture.json").is_file()


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_ends_the_same(archsmith, tmp_path: Path, monkeypatch):
    """The retraining is left out once, as after a kill between the phases."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    given = [*SHRINK, "retrain.epochs=2", "export.formats=[standalone]"]
    assert archsmith(*given, f"hydra.run.dir={whole}").code == 0
    assert archsmith(*given, "task=search", f"hydra.run.dir={parts}").code == 0
    assert archsmith(*given, f"hydra.run.dir={parts}").code == 0
    for name in ("architecture.json", "weights.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


@pytest.mark.slow
def test_the_original_teaches_and_is_not_trained(archsmith, tmp_path: Path, monkeypatch):
    taught = []
    retrain = final.retrain

    def noted(*args, teacher=None, **kwargs):
        taught.append({name: t.clone() for name, t in teacher.state_dict().items()})
        return retrain(*args, teacher=teacher, **kwargs)

    monkeypatch.setattr(final, "retrain", noted)
    given = [*SHRINK, "retrain.teacher=full", "export.formats=[]", f"hydra.run.dir={tmp_path}"]
    assert archsmith(*given).code == 0
    import small_networks

    expected = small_networks.residual(3).state_dict()
    (found,) = taught
    assert {f"net.{name}" for name in expected} == set(found)
    assert all(torch.equal(found[f"net.{name}"], tensor) for name, tensor in expected.items())


def test_a_table_of_another_device_is_refused():
    with pytest.raises(ConfigError, match=r"budget\.latency_table: space from_model has no latenc"):
        fit(latency_ms=5.0, latency_table="latency.csv")
