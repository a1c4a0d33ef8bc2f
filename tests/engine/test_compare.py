"""Runs side by side: by hand from three seeds of two strategies."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from engine.command.compare import Spread, compare, paired, rows
from engine.command.runs import groups, read_runs, tables
from engine.errors import ConfigError
from engine.records.record import RESULTS
from engine.search.benchmark import Benchmark

NO_TABLE = Benchmark(table=None, column="cifar10", samples=2)


def add(folder: Path, strategy: str, seed: int, accuracy: float | None, **more: Any) -> None:
    """A run's folder; with `epochs` of retraining and `lr` of its strategy."""
    path = folder / f"{strategy}-{seed}-{'-'.join(map(str, more.values()))}"
    path.mkdir(parents=True)
    config = {
        "seed": seed,
        "strategy": {"name": strategy, "lr": more.get("lr", 0.1)},
        "retrain": {"epochs": more.get("epochs", 5), "channels": 12},
        "search": {"epochs": more.get("searched", 6)},
        "data": {"root": more.get("root"), "limit": None, "seed": more.get("data_seed", 0)},
    }
    (path / "config.json").write_text(json.dumps(config))
    if accuracy is None:
        return
    results = dict.fromkeys(RESULTS) | {
        "strategy": strategy, "seed": seed, "test_accuracy": accuracy, "seconds": {"search": 10.0},
        "data_fingerprint": more.get("content", "c0ffee"),
    }  # fmt: skip
    (path / "results.json").write_text(json.dumps(results))
    (path / "phases.json").write_text(json.dumps({"search": {}}))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, (random, darts, pcdarts) in enumerate(
        [(0.50, 0.60, 0.52), (0.60, 0.71, 0.58), (0.70, 0.82, 0.71)]
    ):
        add(tmp_path, "random", seed, random)
        add(tmp_path, "darts", seed, darts)
        add(tmp_path, "pcdarts", seed, pcdarts)
    return tmp_path


def test_means_and_paired_differences_by_hand(sweep: Path):
    table = {
        row["runs"]: row
        for row in rows(read_runs(sweep)[0])
        if row["column"].startswith("test accuracy")
    }
    assert table["darts"]["n"] == 3
    assert table["darts"]["mean"] == pytest.approx(71)
    assert table["darts"]["deviation"] == pytest.approx(11)
    assert (table["darts"]["min"], table["darts"]["max"]) == pytest.approx((60, 82))
    # 10, 11, 12 points: mean 11, sd 1; t(0.975, 2) = 4.3027, over the root of 3
    assert table["darts"]["minus random"] == pytest.approx(11)
    assert table["darts"]["minus random, low"] == pytest.approx(
        11 - 4.3027 / math.sqrt(3), abs=1e-3
    )
    assert table["darts"]["minus random, high"] == pytest.approx(
        11 + 4.3027 / math.sqrt(3), abs=1e-3
    )
    assert math.isnan(table["random"]["minus random"])


def test_the_text_says_what_cannot_be_told_from_random(sweep: Path):
    lines = compare(sweep, NO_TABLE).splitlines()
    darts = next(line for line in lines if line.startswith("darts"))
    pcdarts = next(line for line in lines if line.startswith("pcdarts"))
    assert "+11.00 [+8.52, +13.48]" in darts
    assert "not distinguishable" not in darts
    assert "not distinguishable from random" in pcdarts
    with open(sweep / "compare.csv", newline="") as file:
        assert {row["runs"] for row in csv.DictReader(file)} == {"random", "darts", "pcdarts"}
    assert (sweep / "compare.txt").read_text().splitlines() == lines
    page = (sweep / "compare.html").read_text()
    assert page.count('class="chart"') == 2  # test accuracy, search seconds
    assert page.count("<circle") == 2 * 9


def test_recipes_of_retraining_never_share_a_column(sweep: Path):
    add(sweep, "darts", 3, 0.9, epochs=600)
    tested = [row for row in rows(read_runs(sweep)[0]) if row["column"].startswith("test accuracy")]
    assert len({row["column"] for row in tested}) == 2
    assert [row["n"] for row in tested if row["column"].startswith("test accuracy (600")] == [1]


def test_other_settings_are_another_group_named_by_them(sweep: Path):
    add(sweep, "darts", 0, 0.5, lr=0.2)
    assert list(groups(read_runs(sweep)[0])) == [
        "darts", "darts lr=0.2", "pcdarts", "random",
    ]  # fmt: skip


def test_seeds_are_paired_and_those_without_a_partner_left_out(sweep: Path):
    add(sweep, "darts", 7, 0.1)
    runs = groups(read_runs(sweep)[0])
    column = runs["darts"][0].tested
    assert paired(runs["darts"], runs["random"], column).values == pytest.approx([10, 11, 12])


def table_names(folder: Path) -> list[str]:
    return list(tables(read_runs(folder)[0]))


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"searched": 12}, ["search.epochs=6", "search.epochs=12"]),
        ({"epochs": 600}, ["retrain.epochs=5", "retrain.epochs=600"]),
        ({"content": "beef" * 16}, ["images=c0ffee", "images=beefbeef"]),
    ],
)
def test_a2_unlike_runs_stand_in_tables_of_their_own(sweep: Path, more: dict, names: list[str]):
    for seed in (0, 1, 2):
        add(sweep, "gdas", seed, 0.9, **more)
    assert table_names(sweep) == names
    gdas = [row for row in rows(read_runs(sweep)[0]) if row["runs"] == "gdas"]
    assert {row["table"] for row in gdas} == {names[1]}
    assert all(math.isnan(row["minus random"]) for row in gdas)
    text = compare(sweep, NO_TABLE)
    assert all(f"== {name}" in text for name in names)


def test_a2_the_same_images_elsewhere_are_comparable(sweep: Path):
    add(sweep, "gdas", 0, 0.9, root="/elsewhere")
    assert table_names(sweep) == [""]


def test_a2_images_that_the_seed_draws_are_comparable(tmp_path: Path):
    for strategy in ("random", "darts"):
        for seed in (0, 1):
            add(tmp_path, strategy, seed, 0.5, data_seed=seed, content=f"drawn{seed}")
    assert table_names(tmp_path) == [""]
    add(tmp_path, "gdas", 1, 0.5, data_seed=1, content="other images")
    assert len(table_names(tmp_path)) == 3


def test_a2_another_ingredient_is_named_by_its_class(tmp_path: Path):
    for name, relaxation in (
        ("a", {"_target_": "some.Softmax", "start": 1.0}),
        ("b", {"_target_": "some.Gumbel", "tau": 10.0}),
    ):
        add(tmp_path, "darts", 0, 0.5, lr=relaxation, root=name)
    assert list(groups(read_runs(tmp_path)[0])) == ["darts", "darts lr=Softmax"]


def test_c10_runs_without_an_accuracy_are_named(tmp_path: Path):
    add(tmp_path, "darts", 0, 0.5)
    add(tmp_path, "random", 0, 0.5)
    path = next(tmp_path.glob("random*")) / "results.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"test_accuracy": None, "seconds": {}})
    )
    assert "random: no accuracy to compare" in compare(tmp_path, NO_TABLE)


def test_unfinished_runs_are_listed(sweep: Path):
    add(sweep, "gdas", 0, None)
    assert "not finished" in compare(sweep, NO_TABLE)


def test_one_seed_has_no_interval():
    assert Spread([1.0]).interval() == (-math.inf, math.inf)


def test_a_folder_without_runs_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="runs: no run below"):
        compare(tmp_path, NO_TABLE)
