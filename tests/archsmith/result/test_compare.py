"""Runs side by side: by hand from three seeds of two strategies."""

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_runs import add

from archsmith.data.benchmark import Benchmark
from archsmith.errors import ConfigError
from archsmith.result.compare import (
    _difference,
    _finding,
    _number,
    best,
    compare,
    differences,
    measurements,
    spreads,
)
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


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, (random, darts, pcdarts) in enumerate(
        [(0.50, 0.60, 0.52), (0.60, 0.71, 0.58), (0.70, 0.82, 0.71)]
    ):
        add(tmp_path, "random", seed, random)
        add(tmp_path, "darts", seed, darts)
        add(tmp_path, "pcdarts", seed, pcdarts)
    return tmp_path


def compared(runs: list[FinishedRun], name: str) -> dict[str, dict[str, Any]]:
    """Row of each group in the column of test accuracies of a recipe."""
    values = measurements(named_groups(runs))
    part = values[values.column == name]
    return {row["runs"]: row for row in spreads(part).to_dict("records")}


def test_spreads_by_hand(sweep: Path):
    runs = read_runs(sweep)[0]
    darts = compared(runs, runs[0].tested)["darts"]  # 60, 71 and 82
    assert [darts[key] for key in ("n", "mean", "deviation", "median", "min", "max")] == (
        pytest.approx([3, 71, 11, 71, 60, 82])
    )
    assert (darts["25%"], darts["75%"]) == pytest.approx((65.5, 76.5))
    assert math.isnan(darts["low"])  # no interval of three values


def test_differences_by_hand():
    """Five above five: the shift is the median of 25 differences, p = 2 / C(10, 5) = 0.0079, which
    Holm takes twice. Two and five can have no p below 2 / C(7, 2) = 0.095."""
    groups = {
        "random": [1, 2, 3, 4, 5], "darts": [11.0, 12.5, 13, 14, 15], "few": [21, 22],
        "like": [1.5, 2.5, 3.5, 4.5, 5.5],
    }  # fmt: skip
    lines = [
        ("c", name, seed, float(value))
        for name, values in groups.items()
        for seed, value in enumerate(values)
    ]
    values = pd.DataFrame(lines, columns=["column", "runs", "seed", "value"])
    found = differences(values, ["random"]).set_index("runs")
    assert list(found["shift"]) == pytest.approx([10, 18.5, 0.5])
    assert found["p"]["darts"] == pytest.approx(2 * 2 / 252)
    assert math.isnan(found["p"]["few"])
    assert found["p"]["like"] == pytest.approx(like_p())
    pairs = differences(values)
    assert list(zip(pairs.runs, pairs.baseline, strict=True)) == [
        ("darts", "random"), ("few", "random"), ("like", "random"), ("few", "darts"),
        ("like", "darts"),
    ]  # fmt: skip
    assert differences(values, ["none"]).empty


def like_p() -> float:
    """Counted: of all ways to give five of ten ranks, those whose sum is as far from 27.5 as that
    of 2 4 6 8 10."""
    sums = [sum(ranks) for ranks in itertools.combinations(range(1, 11), 5)]
    return sum(abs(one - 27.5) >= 2.5 for one in sums) / len(sums)


def test_the_text_by_hand(tmp_path: Path):
    """p = 2 / C(10, 5) = 0.0079 for the groups apart from `random`, times three tests: 0.024; one
    seed is no test."""
    for seed in range(5):
        add(tmp_path, "random", seed, 0.50 + 0.01 * seed, parameters=999)
        add(tmp_path, "better", seed, 0.60 + 0.01 * seed, parameters=1000 + seed)
        add(tmp_path, "like", seed, 0.505 + 0.01 * seed)
        add(tmp_path, "worse", seed, 0.40 + 0.01 * seed)
    add(tmp_path, "last", 0, 0.4, diagnosis={"discretisation_gap": 0.125})
    column = read_runs(tmp_path)[0][0].tested
    text = compare(tmp_path, NO_TABLE)
    first, gap, parameters, seconds = text.strip().split("\n\n")
    expected = f"""\
{column} (%)
better than random: better; worse than random: worse; not distinguishable from random: like; too few seeds against random: last
         n       mean         sd     median        25%        75%        min        max   95% of mean      against random
better   5      62.00       1.58      62.00      61.00      63.00      60.00      64.00   60.80 to 63.20   +10.00, p=0.024
last     1      40.00          -      40.00      40.00      40.00      40.00      40.00                    -12.00, too few seeds
like     5      52.50       1.58      52.50      51.50      53.50      50.50      54.50   51.30 to 53.70   +0.50, p=0.69, not distinguishable
random   5      52.00       1.58      52.00      51.00      53.00      50.00      54.00   50.80 to 53.20
worse    5      42.00       1.58      42.00      41.00      43.00      40.00      44.00   40.80 to 43.20   -10.00, p=0.024"""  # noqa: E501
    assert first == expected
    assert gap.splitlines()[0] == "discretisation gap (%)"
    assert gap.splitlines()[2].split() == ["last", "1", "12.50", "-", *["12.50"] * 5]
    assert "better   5   1,002" in " ".join(parameters.split()).replace(
        "better 5 ", "better   5   "
    )
    assert "against" not in seconds


def test_files_and_dots(sweep: Path):
    text = compare(sweep, NO_TABLE)
    assert "+11.00, too few seeds" in text
    assert "too few seeds against random: darts, pcdarts" in text
    with open(sweep / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["runs"] for row in rows} == {"random", "darts", "pcdarts"}
    darts = next(row for row in rows if row["runs"] == "darts")
    assert float(darts["shift, random"]) == pytest.approx(11)
    assert darts["p, random"] == "nan"
    assert (sweep / "compare.txt").read_text() == text
    page = (sweep / "compare.html").read_text()
    assert page.count('class="run"') == 9


def test_the_whole_benchmark_stands_below_its_column_and_no_other(tmp_path: Path):
    for seed, accuracy in enumerate((91.0, 92.0)):
        found = {"benchmark": {"accuracy": accuracy}, "diagnosis": {"alpha_eigenvalue": 0.5}}
        add(tmp_path, "darts", seed, 0.5, **found)
    table = tmp_path / "table.csv"
    table.write_text("architecture,cifar10\n" + "".join(f"a{i},{i}\n" for i in range(101)))
    whole = (
        "all 101 architectures of the table: mean 50.00, best 100.00; quantiles 5%: 5.00, "
        "25%: 25.00, 50%: 50.00, 75%: 75.00, 95%: 95.00\n"
        # 100 minus the sum of (k / 101)^n over k up to 100; for n = 3 (100 * 101 / 2)^2 / 101^3
        "without a search: the best of several at random, in the mean: of 3 75.25, of 10 91.31\n"
        "chance that as many architectures drawn from the table have so high a mean:\n"
        "  darts: 0.017"  # a sum of at least 183: 171 of 101 * 101 pairs
    )
    text = compare(tmp_path, Benchmark(table=str(table), column="cifar10", samples=2))
    assert [
        part.splitlines()[0] for part in text.strip().split("\n\n") if part.endswith(whole)
    ] == ["benchmark accuracy (%)"]
    assert text.count("of the table") == 1
    page = (tmp_path / "compare.html").read_text()
    assert page.count("Without a search") == 1
    assert "<th>mean of all 101 architectures</th>" in page
    assert "of the table" not in compare(tmp_path, NO_TABLE)


def test_cells_that_need_no_search_stand_below_a_table_that_has_them(tmp_path: Path):
    cells = {
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|": 94.0,
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|": 93.0,
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|": 95.0,
        "|skip_connect~0|+|skip_connect~0|skip_connect~1|": 54.0,
    }
    table = tmp_path / "table.csv"
    lines = ["architecture,cifar10", *(f"{cell},{value}" for cell, value in cells.items())]
    table.write_text("\n".join(lines) + "\n")
    add(tmp_path, "darts", 0, 0.5, benchmark={"accuracy": 94.0})
    text = compare(tmp_path, Benchmark(table=str(table), column="cifar10", samples=2))
    assert "  2 cells of convolutions alone: mean 93.50, above 50.0%\n" in text
    assert "  1 cell of 3x3 convolutions alone: mean 94.00, above 50.0%\n" in text


def test_how_a_searcher_scores_belongs_to_its_label(tmp_path: Path):
    """A search by gradient reads neither; its length is a number of seconds, as is theirs."""

    def searched(name: str, score: str, epochs: int, **results: Any) -> None:
        add(tmp_path, name, 0, 0.5, score=score, searched=epochs, **results)
        path = next(tmp_path.glob(f"{name}-0-{score}-*/config.json"))
        config = json.loads(path.read_text())
        config["search"] |= {"score": score, "seconds": 60}
        path.write_text(json.dumps(config))

    searched("darts", "training", 50)
    for score, epochs in (("training", 5), ("inherited", 30)):
        searched("random", score, epochs, diagnosis={"scored": 9})
    (members,) = tables(read_runs(tmp_path)[0]).values()
    assert list(named_groups(members)) == [
        "darts", "random", "random epochs=5 score=training"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.05, "+1.00, p=0.05"),
        (0.051, "+1.00, p=0.051, not distinguishable"),
        (math.nan, "+1.00, too few seeds"),
    ],
)
def test_a_p_value_up_to_the_level_is_a_difference(p: float, said: str):
    row = {"shift, darts": 1.0, "p, darts": p}
    assert _difference(row, "darts") == said
    assert _difference(row, "random") == ""


@pytest.mark.parametrize(
    ("shift", "p", "said"),
    [
        (0.1, 0.05, "better than random: darts"),
        (-0.1, 0.05, "worse than random: darts"),
        (0.1, 0.06, "not distinguishable from random: darts"),
        (0.1, math.nan, "too few seeds against random: darts"),
    ],
)
def test_the_finding_in_words(shift: float, p: float, said: str):
    rows = [{"runs": "random"}, {"runs": "darts", "shift, random": shift, "p, random": p}]
    assert _finding(rows) == [said]
    assert _finding(rows[:1]) == []


def test_the_page_has_a_part_for_each_table(sweep: Path):
    compare(sweep, NO_TABLE)
    assert "<h2>" not in (sweep / "compare.html").read_text()
    add(sweep, "gdas", 0, 0.9, searched=12)
    text = compare(sweep, NO_TABLE)
    assert text.startswith("2 tables: runs differ in more than strategy and seed\n\n== search.ep")
    page = (sweep / "compare.html").read_text()
    assert "<h2>search.epochs=6</h2>" in page
    assert "<h1>10 runs of " in page
    assert page.count('<figure class="dots">') == 2


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
    assert gdas
    text = compare(sweep, NO_TABLE)
    assert "too few seeds against random: darts, pcdarts\n" in text
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
    assert "+12.50, too few seeds" in text
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


def test_a_folder_without_runs_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="runs: no run below"):
        compare(tmp_path, NO_TABLE)


@pytest.mark.parametrize(
    ("value", "shown"), [(999.994, "999.99"), (1000.0, "1,000"), (-1000.4, "-1,000")]
)
def test_a_number_from_a_thousand_on_is_whole(value: float, shown: str):
    assert _number(value) == shown


def test_the_finding_needs_no_random_runs():
    row = {"runs": "pcdarts", "shift, darts": 2.0, "p, darts": 0.01}
    assert _finding([row]) == ["better than darts: pcdarts"]


@pytest.mark.parametrize(
    ("measured", "latency"),
    [
        ({}, None),
        ({"budget": {"latency": {"median": 2.5}}}, 2.5),
        ({"latency": {"model.py": {"median": 1.5}, "model.onnx": {"median": 0.5}}}, 1.5),
    ],
)
def test_a_latency_is_that_of_the_budget_or_of_the_export(tmp_path: Path, measured, latency):
    path = add(tmp_path, "darts", 0, 0.9) / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | measured))
    ((run,), _) = read_runs(tmp_path)
    assert run.latency == latency


def test_the_best_run_of_a_sweep_is_named(tmp_path: Path):
    add(tmp_path, "darts", 0, 0.5)
    most = add(tmp_path, "darts", 1, 0.9)
    add(tmp_path, "random", 0, 0.7)
    assert best(tmp_path) == f"best of 3 runs: {most}, test accuracy 90.00%\n"
