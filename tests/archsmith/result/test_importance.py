"""The share of the variance that swept settings explain, by hand."""

import json
import math
from pathlib import Path

import pytest
from made_runs import add

from archsmith.result.importance import importances, swept
from archsmith.result.runs import read_runs


def change(folder: Path, **settings: object) -> None:
    """Settings of the strategy of a run."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["strategy"] |= settings
    path.write_text(json.dumps(config))


def test_a_setting_that_decides_explains_everything_and_another_what_chance_gives(tmp_path: Path):
    """Six runs: lr decides; `warmup` is even in both halves. Two values: (2 - 1) / (6 - 1)."""
    for i, (lr, warmup) in enumerate([(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]):
        change(add(tmp_path, "darts", i, 0.5 + 0.1 * lr, lr=lr, note=i), warmup=warmup > 0)
    found = {one.setting: one for one in importances(read_runs(tmp_path)[0])}
    assert list(found) == ["strategy.lr", "strategy.warmup", "seed"]
    assert found["strategy.lr"].share == pytest.approx(1)
    assert found["strategy.lr"].by_chance == pytest.approx(0.2)
    assert found["strategy.lr"].groups == {
        "1": (pytest.approx(60), 3), "2": (pytest.approx(70), 3),
    }  # fmt: skip
    assert found["strategy.warmup"].share == pytest.approx(0)
    assert math.isnan(found["seed"].share), "one run for each seed"


def test_noise_within_values_is_not_explained(tmp_path: Path):
    """Values 50 52 54 | 56 58 60: between the means 2 * 3 * 3^2 = 54, in all 70."""
    for i in range(6):
        add(tmp_path, "darts", 0, 0.5 + 0.02 * i, lr=i // 3, note=i)
    (lr,) = importances(read_runs(tmp_path)[0])
    assert lr.share == pytest.approx(54 / 70)
    assert lr.runs == 6


def test_numbers_of_an_interval_are_cut_into_ranges(tmp_path: Path):
    for i in range(12):
        add(tmp_path, "darts", 0, 0.5 + 0.02 * (i // 3), lr=0.01 * i)
    (lr,) = importances(read_runs(tmp_path)[0])
    assert list(lr.groups) == ["0 to 0.02", "0.03 to 0.05", "0.06 to 0.08", "0.09 to 0.11"]
    assert [number for _, number in lr.groups.values()] == [3, 3, 3, 3]
    assert lr.share == pytest.approx(1)


def test_with_too_few_runs_it_says_nothing(tmp_path: Path):
    for i in range(5):
        add(tmp_path, "darts", 0, 0.5 + 0.1 * i, lr=i)
    (lr,) = importances(read_runs(tmp_path)[0])
    assert math.isnan(lr.share)
    assert math.isnan(lr.by_chance)


def test_strategies_and_seeds_alone_are_no_sweep_of_settings(tmp_path: Path):
    for strategy, lr in (("darts", 0.1), ("pcdarts", 0.2)):
        for seed in range(3):
            add(tmp_path, strategy, seed, 0.5, lr=lr, data_seed=seed, content=f"c{seed}")
    assert importances(read_runs(tmp_path)[0]) == []


def test_a_setting_is_judged_by_the_strategies_in_which_it_varies(tmp_path: Path):
    for i in range(6):
        add(tmp_path, "darts", i % 3, 0.5 + 0.1 * (i // 3), lr=i // 3)
        add(tmp_path, "random", i, 0.1, lr=9)
    found = {one.setting: one for one in importances(read_runs(tmp_path)[0])}
    assert found["strategy.lr"].runs == 6
    assert found["strategy"].runs == 12
    # means 55 and 10 of 12 values, six of them at a distance of 5 from their mean
    assert found["strategy"].share == pytest.approx(1 - 150 / (150 + 12 * 22.5**2))


def test_settings_outside_the_strategy_count_and_recipes_share_the_column(tmp_path: Path):
    for i in range(6):
        add(tmp_path, "darts", 0, 0.5 + 0.1 * (i // 3), epochs=1 + i // 3, note=i)
    (epochs,) = importances(read_runs(tmp_path)[0])
    assert epochs.setting == "retrain.epochs"
    assert epochs.share == pytest.approx(1)


def test_another_class_stands_for_its_settings(tmp_path: Path):
    for name, lr in (
        ("a", {"_target_": "some.Softmax", "start": 1.0}),
        ("b", {"_target_": "some.Gumbel", "tau": 10.0}),
    ):
        add(tmp_path, "darts", 0, 0.5, lr=lr, root=name)
    runs = read_runs(tmp_path)[0]
    assert swept(runs) == ["strategy.lr"]
    (lr,) = importances(runs)
    assert list(lr.groups) == ["Gumbel", "Softmax"]
