"""A table of latencies: measured, written, read, and used by a search."""

import json
import math
import time
from pathlib import Path

import pytest
import torch
from planted_lags import one_block
from recording import recorded
from test_command_line import line_of

from archsmith.result import latency
from archsmith.result.latency import candidate_latencies, option_latencies
from supernets.final_costs import Site
from supernets.latency_table import FIXED, latency_cost, written

TINY = [
    "space=mbconv", "space.layers=3", "space.channels=4", "data=synthetic", "data.size=48",
    "data.image_size=8", "data.classes=3", "runtime.threads=1",
]  # fmt: skip


def test_every_option_is_measured_where_it_stands_and_read_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(latency, "REPEATS", (3, 3))
    space = one_block()
    found = option_latencies(space, torch.device("cpu"), 2)
    names = space.chain.blocks[0].names
    assert list(found) == [Site(FIXED, 1, 4, 1, 12, 12), *(Site(n, 4, 4, 1, 12, 12) for n in names)]
    assert all(one.low <= one.median <= one.high and one.batch == 2 for one in found.values())
    path = tmp_path / "latency.csv"
    path.write_text(written((site, {"median_ms": one.median}) for site, one in found.items()))
    cost = latency_cost(space, path)
    medians = [one.median for one in found.values()]
    assert [cost.fixed, *cost.tables["blocks"][0].tolist()] == pytest.approx(medians)


@pytest.mark.parametrize("space", ["tas", "hypercuboid", "modular"])
def test_options_without_a_latency_of_their_own_are_refused(archsmith, space: str):
    given = [f"space={space}", *TINY[3:], "retrain.layers=null", "strategy=random"]
    said = archsmith(*given, "task=measure_latency")
    assert said.code == 2
    assert f"archsmith: costs of options do not add up in space {space}, " in line_of(said)


def test_a_pass_is_warmed_up_before_it_is_timed(monkeypatch):
    passes = []

    class Counted(torch.nn.Identity):
        def forward(self, x):
            passes.append(tuple(x.shape))
            return x

    one = latency._measured(Counted(), (2, 3, 4, 4), torch.device("cpu"), (3, 3), 0.0)
    assert passes == [(2, 3, 4, 4)] * (latency.WARM_UP + 3)
    assert one.repeats == 3


class Slow(torch.nn.Module):
    """Python takes 20 ms to launch its operation; a replay has no Python in it."""

    reads = False

    def forward(self, x):
        time.sleep(0.02)
        return x * (float(x.sum()) if self.reads else 2)


@pytest.mark.parametrize("reads", [False, True], ids=["captured", "not captured"])
def test_where_passes_can_be_captured_replays_are_timed(reads: bool, monkeypatch, caplog):
    monkeypatch.setattr(latency, "captures_safely", lambda device: True)
    monkeypatch.setattr(latency, "cuda_capture", lambda: recorded)
    net, cpu = Slow(), torch.device("cpu")
    net.reads = reads
    one = latency._measured(net, (2, 3, 4, 4), cpu, (3, 3), 0.0)
    assert (one.median > 20) == reads
    assert one.high < (math.inf if reads else 10)
    assert ("(a graph cannot read a tensor on the host, " in caplog.text) == reads


def test_the_time_of_a_replay_is_the_mean_of_several(monkeypatch):
    """Of five replays of 1, 2, 3, 4 and 5 s, by a clock that only they move."""
    now, took = [0.0], iter([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])

    def replay() -> None:
        now[0] += next(took)

    assert latency._timed(replay, torch.device("cpu"), 5) == 3.0


def test_a_guide_is_measured_by_the_protocol_of_a_table(monkeypatch):
    monkeypatch.setattr(latency, "PASSES", (3, 3))
    monkeypatch.setattr(latency, "REPEATS", (3, 3))
    seen = []

    def measured(net, shape, device, repeats, most):
        seen.append(shape)
        return latency.Latency(2.0, 1.0, 3.0, repeats[0], shape[0])

    monkeypatch.setattr(latency, "_measured", measured)
    space = one_block()
    cost = candidate_latencies(space, torch.device("cpu"), 2)
    assert (cost.fixed, cost.tables["blocks"].tolist()) == (0.0, [[2.0] * 5])
    guide = list(seen)
    found = option_latencies(space, torch.device("cpu"), 2)
    assert seen[len(guide) + 1 :] == guide == [(2, 4, 12, 12)] * 5
    assert len(found) == 6


@pytest.mark.slow
def test_a_search_with_the_table_of_the_task_records_the_latency_it_found(archsmith, monkeypatch):
    monkeypatch.setattr(latency, "REPEATS", (3, 3))
    said = archsmith(*TINY, "task=measure_latency", "hydra.run.dir=measured")
    assert said.code == 0, said.err
    header, *lines = Path("measured/latency.csv").read_text().splitlines()
    assert header.startswith("option,c_in,c_out,stride,height,width,median_ms,low_ms,high_ms,")
    said = archsmith(
        *TINY, "strategy=singlepath", "task=search", "search.epochs=2", "search.batch_size=16",
        "strategy.losses.latency.table=measured/latency.csv", "hydra.run.dir=found",
    )  # fmt: skip
    assert said.code == 0, said.err
    costs = json.loads(Path("found/results.json").read_text())["searched_costs"]
    medians = sorted(float(line.split(",")[6]) for line in lines)
    assert 5 * medians[0] < costs["latency_ms"] < 6 * medians[-1]
    assert "latency_ms (as searched)" in said.out
