"""True accuracies against processor time, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import add

from archsmith.result.anytime import curve, history
from archsmith.result.runs import read_runs


def searched(folder: Path, benchmark: dict[str, Any], lines: list[dict[str, Any]]) -> list:
    """The history of a run of 10 processor seconds with these lines of metrics."""
    path = add(folder, "darts", 0, None)
    results = {"strategy": "darts", "seed": 0, "benchmark": benchmark}
    (path / "results.json").write_text(json.dumps(results | {"cpu_seconds": {"search": 10.0}}))
    (path / "phases.json").write_text('{"search": {}}')
    text = "".join(json.dumps({"phase": "search", **line}) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + '{"phase": "retrain", "seconds": 9.0}\n')
    return history(read_runs(folder)[0][0])


def test_epochs_share_the_processor_time_as_they_shared_the_time(tmp_path: Path):
    found = searched(
        tmp_path, {"accuracy_by_epoch": [90.0, 92.0]}, [{"seconds": 5.0}, {"seconds": 15.0}]
    )
    assert found == [(2.5, 90.0), (10.0, 92.0)]


def test_a_searcher_keeps_the_candidate_with_the_best_score(tmp_path: Path):
    scores = [0.5, 0.4, 0.5, 0.6]
    found = searched(
        tmp_path,
        {"accuracy_by_epoch": [], "accuracy_by_candidate": [90.0, 91.0, 92.0, 80.0]},
        [{"seconds": 1.0, "score": score} for score in scores],
    )
    assert [value for _, value in found] == [90.0, 90.0, 90.0, 80.0]


@pytest.mark.parametrize(
    ("benchmark", "lines"),
    [
        ({}, [{"seconds": 1.0}]),
        ({"accuracy_by_epoch": [90.0]}, []),
        ({"accuracy_by_epoch": [90.0]}, [{"loss": 1.0}]),
        ({"accuracy_by_epoch": [90.0, 91.0]}, [{"seconds": 1.0}]),
    ],
)
def test_without_a_time_for_each_accuracy_there_is_no_history(
    tmp_path: Path, benchmark: dict, lines: list
):
    assert searched(tmp_path, benchmark, lines) == []


def test_the_curve_starts_where_all_have_something_and_holds_what_ended():
    found = curve([[(1.0, 80.0), (5.0, 90.0)], [(2.0, 70.0), (3.0, 60.0)], [(1.0, 75.0)]])
    assert (found.times[0], found.times[-1]) == (2.0, 5.0)
    assert (found.low[0], found.median[0], found.high[0]) == (72.5, 75.0, 77.5)
    assert (found.low[-1], found.median[-1], found.high[-1]) == (67.5, 75.0, 82.5)
    assert found.runs == 3
