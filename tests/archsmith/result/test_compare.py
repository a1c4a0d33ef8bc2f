"""Runs side by side: by hand from three seeds of two strategies."""

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from archsmith.data.benchmark import Benchmark
from archsmith.errors import ConfigError
from archsmith.result.compare import _difference, compare, half_interval, measurements, spreads
from archsmith.result.runs import FinishedRun, named_groups, read_runs, tables
from archsmith.train.record import RESULTS


def rows(runs: list[FinishedRun]) -> list[dict[str, Any]]:
    """The rows of all tables."""
    return [
        row | {"table": name}
        for name, members in tables(runs).items()
        for row in spreads(measurements(named_groups(members))).to_dict("records")
    ]


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
    if "architecture" in more:
        config["architecture"] = more["architecture"]
    (path / "config.json").write_text(json.dumps(config))
    if accuracy is None:
        return
    results = dict.fromkeys(RESULTS) | {
        "strategy": strategy, "seed": seed, "test_accuracy": accuracy,
        "seconds": more.get("seconds", {"search": 10.0}),
        "data_fingerprint": more.get("content", "c0ffee"), "parameters": more.get("parameters"),
        "diagnosis": more.get("diagnosis"), "benchmark": more.get("benchmark"),
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


def test_the_text_by_hand(tmp_path: Path):
    """t(0.975, 2) = 4.3027; `last` has one seed, `worse` differs by -10, -9 and -8 points."""
    for seed, (random, darts, worse) in enumerate(
        [(0.50, 0.60, 0.40), (0.60, 0.71, 0.51), (0.70, 0.82, 0.62)]
    ):
        add(tmp_path, "random", seed, random, parameters=999)
        add(tmp_path, "darts", seed, darts, parameters=1000 + seed)
        add(tmp_path, "worse", seed, worse, parameters=1_234_567)
    add(tmp_path, "last", 0, 0.4, diagnosis={"discretisation_gap": 0.125})
    column = read_runs(tmp_path)[0][0].tested
    # a deviation of 1 point, over the root of 3 seeds, times t: half an interval is 2.4842
    expected = f"""\
{column} (%)
         n        mean          sd         min         max   paired difference to random   paired difference to darts
darts    3       71.00       11.00       60.00       82.00   +11.00 [+8.52, +13.48]
last     1       40.00           -       40.00       40.00   -10.00 (one seed)             -20.00 (one seed)
random   3       60.00       10.00       50.00       70.00                                 -11.00 [-13.48, -8.52]
worse    3       51.00       11.00       40.00       62.00   -9.00 [-11.48, -6.52]         -20.00 [-20.00, -20.00]

discretisation gap (%)
       n        mean          sd         min         max
last   1       12.50           -       12.50       12.50

parameters
         n        mean          sd         min         max
darts    3       1,001        1.00       1,000       1,002
random   3      999.00        0.00      999.00      999.00
worse    3   1,234,567        0.00   1,234,567   1,234,567

search seconds
         n        mean          sd         min         max
darts    3       10.00        0.00       10.00       10.00
last     1       10.00           -       10.00       10.00
random   3       10.00        0.00       10.00       10.00
worse    3       10.00        0.00       10.00       10.00
"""  # noqa: E501
    assert compare(tmp_path, NO_TABLE) == expected


def test_the_whole_benchmark_stands_below_its_column_and_no_other(tmp_path: Path):
    for seed, accuracy in enumerate((91.0, 92.0)):
        add(tmp_path, "darts", seed, 0.5, benchmark={"accuracy": accuracy})
    table = tmp_path / "table.csv"
    table.write_text("architecture,cifar10\n" + "".join(f"a{i},{i}\n" for i in range(101)))
    whole = (
        "all 101 architectures of the table: mean 50.00, best 100.00; quantiles 5%: 5.00, "
        "25%: 25.00, 50%: 50.00, 75%: 75.00, 95%: 95.00"
    )
    text = compare(tmp_path, Benchmark(table=str(table), column="cifar10", samples=2))
    below = {part.splitlines()[0]: part.splitlines()[-1] for part in text.strip().split("\n\n")}
    assert [head for head, last in below.items() if last == whole] == ["benchmark accuracy (%)"]
    assert whole not in compare(tmp_path, NO_TABLE)


def test_a_difference_that_just_holds_zero_is_not_told_from_the_baseline():
    def said(low: float, high: float) -> str:
        row = {"minus darts": 1.0, "minus darts, low": low, "minus darts, high": high}
        return _difference(row, "darts")

    assert said(0.5, 1.5) == "+1.00 [+0.50, +1.50]"
    assert said(-1.5, -0.5) == "+1.00 [-1.50, -0.50]"
    for low, high in ((0.0, 2.0), (-2.0, 0.0), (-0.5, 0.5)):
        assert said(low, high).endswith("], not distinguishable from darts")


def test_the_page_has_a_part_for_each_table(sweep: Path):
    compare(sweep, NO_TABLE)
    assert "<h2>" not in (sweep / "compare.html").read_text()
    add(sweep, "gdas", 0, 0.9, searched=12)
    text = compare(sweep, NO_TABLE)
    assert text.startswith("2 tables: runs differ in more than strategy and seed\n\n== search.ep")
    page = (sweep / "compare.html").read_text()
    assert "<h2>search.epochs=6</h2>" in page
    assert "<h1>10 runs of " in page
    assert page.count('class="chart"') == 4


def test_recipes_of_retraining_never_share_a_column(sweep: Path):
    add(sweep, "darts", 3, 0.9, epochs=600)
    tested = [row for row in rows(read_runs(sweep)[0]) if row["column"].startswith("test accuracy")]
    assert len({row["column"] for row in tested}) == 2
    assert [row["n"] for row in tested if row["column"].startswith("test accuracy (600")] == [1]


def test_other_settings_are_another_group_named_by_them(sweep: Path):
    add(sweep, "darts", 0, 0.5, lr=0.2)
    assert list(named_groups(read_runs(sweep)[0])) == [
        "darts", "darts lr=0.2", "pcdarts", "random",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"adam": {"rate": 2}}, "darts rate=2"),
        ({"adam": {"rate": 2}, "sgd": {"rate": 3}}, "darts lr.adam.rate=2 lr.sgd.rate=3"),
        ({"adam": {"rate": [1, 2]}}, "darts rate=[1,2]"),
        ("ab" * 32, "darts lr=abababab"),  # a digest has 64 digits
        ("ab" * 31 + "c", "darts lr=" + "ab" * 31 + "c"),
        ("ab" * 32 + "c", "darts lr=" + "ab" * 32 + "c"),
        (None, "darts lr=none"),
    ],
)
def test_a_setting_is_named_without_its_parents_where_that_is_clear(
    tmp_path: Path, settings: Any, name: str
):
    before = {key: {"rate": 1} for key in settings} if isinstance(settings, dict) else 0.1
    add(tmp_path, "darts", 0, 0.5, lr=before, root="a")
    add(tmp_path, "darts", 0, 0.5, lr=settings, root="b")
    assert list(named_groups(read_runs(tmp_path)[0])) == ["darts", name]


def test_a_setting_that_a_run_does_not_know_counts_as_null(tmp_path: Path):
    """As between versions: all runs stand in one group, and none is lost."""
    for seed in range(3):
        add(tmp_path, "darts", seed, 0.5, lr=None)
    path = next(tmp_path.glob("darts-0-*")) / "config.json"
    config = json.loads(path.read_text())
    del config["strategy"]["lr"], config["data"]["limit"]
    path.write_text(json.dumps(config))
    (members,) = tables(read_runs(tmp_path)[0]).values()
    assert {name: len(runs) for name, runs in named_groups(members).items()} == {"darts": 3}


def test_a_given_architecture_is_a_group_of_its_own(tmp_path: Path):
    add(tmp_path, "darts", 0, 0.5)
    add(tmp_path, "darts", 0, 0.5, architecture="ab" * 32)
    names = list(named_groups(read_runs(tmp_path)[0]))
    assert names == ["darts", "darts architecture=abababab"]


def test_a_run_has_no_number_in_the_column_of_another_recipe(tmp_path: Path):
    for epochs in (1, 5, 600):
        add(tmp_path, "darts", epochs, 0.5, epochs=epochs)
    for run, other in itertools.permutations(read_runs(tmp_path)[0], 2):
        assert run.values[run.tested] == 50
        assert other.tested not in run.values


def test_seeds_are_paired_and_those_without_a_partner_left_out(sweep: Path):
    add(sweep, "darts", 7, 0.1)
    runs = named_groups(read_runs(sweep)[0])
    (darts,) = (
        row
        for row in spreads(measurements(runs)).to_dict("records")
        if (row["column"], row["runs"]) == (runs["darts"][0].tested, "darts")
    )
    assert darts["n"] == 4
    assert darts["minus random"] == pytest.approx(11)  # of 10, 11 and 12


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


def test_a2_images_that_differ_while_their_seed_does_not_stand_apart(tmp_path: Path):
    for seed in (0, 1):
        add(tmp_path, "darts", seed, 0.5, data_seed=5, content=f"other{seed}")
    assert table_names(tmp_path) == ["images=other0", "images=other1"]


def test_a2_images_that_the_seed_draws_do_not_name_a_table(tmp_path: Path):
    for seed in (0, 1):
        add(tmp_path, "darts", seed, 0.5, data_seed=seed, content=f"drawn{seed}")
    add(tmp_path, "gdas", 0, 0.5, data_seed=0, content="drawn0", searched=12)
    assert table_names(tmp_path) == ["search.epochs=6", "search.epochs=12"]


def test_a2_another_ingredient_is_named_by_its_class(tmp_path: Path):
    for name, relaxation in (
        ("a", {"_target_": "some.Softmax", "start": 1.0}),
        ("b", {"_target_": "some.Gumbel", "tau": 10.0}),
    ):
        add(tmp_path, "darts", 0, 0.5, lr=relaxation, root=name)
    assert list(named_groups(read_runs(tmp_path)[0])) == ["darts", "darts lr=Softmax"]


def test_c10_runs_without_an_accuracy_are_named(tmp_path: Path):
    add(tmp_path, "darts", 0, 0.5)
    add(tmp_path, "random", 0, 0.5)
    path = next(tmp_path.glob("random*")) / "results.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"test_accuracy": None, "seconds": {}})
    )
    assert "random: no accuracy to compare" in compare(tmp_path, NO_TABLE)


@pytest.mark.parametrize("name", ["supernet", "discretised"])
def test_accuracies_before_retraining_are_in_percent_and_beside_random(tmp_path: Path, name: str):
    for strategy, share in (("random", 0.5), ("darts", 0.625)):
        add(tmp_path, strategy, 0, None)
        folder = tmp_path / f"{strategy}-0-"
        results = dict.fromkeys(RESULTS) | {"strategy": strategy, f"{name}_accuracy": share}
        (folder / "results.json").write_text(json.dumps({**results, "seed": 0}))
        (folder / "phases.json").write_text(json.dumps({"search": {}}))
    text = compare(tmp_path, NO_TABLE)
    assert f"{name} accuracy (%)" in text
    assert "62.50" in text
    assert "+12.50 (one seed)" in text
    assert "no accuracy to compare" not in text


def test_unfinished_runs_are_listed(sweep: Path):
    add(sweep, "gdas", 0, None)
    assert "not finished" in compare(sweep, NO_TABLE)


def test_a_single_number_is_a_table(tmp_path: Path):
    add(tmp_path, "darts", 0, 0.5, seconds={})
    compare(tmp_path, NO_TABLE)
    with open(tmp_path / "compare.csv", newline="") as file:
        assert [(row["runs"], row["mean"]) for row in csv.DictReader(file)] == [("darts", "50.0")]


def test_where_no_run_is_finished_the_tables_are_empty(tmp_path: Path):
    add(tmp_path, "gdas", 0, None)
    assert compare(tmp_path, NO_TABLE) == f"not finished: {tmp_path / 'gdas-0-'}\n"
    assert (tmp_path / "compare.csv").read_text().strip() == ""


def spread(*values: float) -> tuple[float, float, float]:
    """Mean, deviation and half the interval."""
    lines = [("c", "darts", seed, value) for seed, value in enumerate(values)]
    (row,) = spreads(pd.DataFrame(lines, columns=["column", "runs", "seed", "value"])).itertuples()
    return row.mean, row.deviation, half_interval(pd.Series(row.n), pd.Series(row.deviation))[0]


def test_one_seed_has_no_interval():
    assert spread(1.0) == pytest.approx((1, math.nan, math.inf), nan_ok=True)


def test_two_seeds_have_an_interval():
    """1 and 3: deviation root 2, over root 2 is 1; t(0.975, 1) = 12.7062."""
    assert spread(1.0, 3.0) == pytest.approx((2, math.sqrt(2), 12.7062), abs=1e-4)


def test_a_folder_without_runs_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="runs: no run below"):
        compare(tmp_path, NO_TABLE)
