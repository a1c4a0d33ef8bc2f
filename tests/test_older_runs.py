"""Runs and files of older versions: what `tests/fixtures` holds was made by version 0.1.0."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import ROOT
from hydra.utils import get_object
from omegaconf import OmegaConf
from test_every_config import composed

from archsmith.differences import MOVED, differing_keys, renamed

OLD = ROOT / "tests" / "fixtures" / "run_0.1.0"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return shutil.copytree(OLD, tmp_path / "old")


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_classes_are_found_where_they_are_now():
    before = {
        "data": {"_target_": "engine.data.sets.folder", "root": "engine.data"},
        "recipe": {"_target_": "engine.final.recipe.Recipe", "deeper": {"_target_": "x.engine"}},
        "runtime": {"_target_": "archsmith.train.runtime.Runtime"},
        "strategy": {"_target_": "strategies.random_search.RandomSearch"},
    }
    assert renamed(before) == {
        "data": {
            "_target_": "archsmith.data.sets.folder",
            "root": "engine.data",
            "test_share": None,
        },
        "recipe": {
            "_target_": "archsmith.result.recipe.Recipe",
            "deeper": {"_target_": "x.engine"},
        },
        "runtime": {"_target_": "archsmith.train.runtime.Runtime"},
        "strategy": {"_target_": "strategies.searchers.random.RandomSearch"},
    }


def test_an_older_random_search_is_that_of_today():
    """Before searchers were a kind of their own, there was no number of architectures to ask."""
    old = {"_target_": "strategies.random_search.RandomSearch", "alpha_lr_scale": None}
    now = OmegaConf.load(ROOT / "conf" / "strategy" / "random.yaml")
    now.pop("_partial_")
    assert differing_keys(renamed(old), OmegaConf.to_container(now)) == []


def test_settings_of_a_strategy_that_came_later_are_as_it_was_before():
    before = {
        "_target_": "strategies.strategy.Strategy",
        "edge_normalisation": {"_target_": "strategies.edge_normalisation.softmax.EdgeSoftmax"},
        "min_lr": 0.1,
    }
    now = OmegaConf.to_container(composed("strategy=pcdarts").strategy)
    names = ("topology", "schedule", "alpha_schedule", "regularisation")
    assert renamed(before) == {
        **{n: now[n] for n in names},
        "_target_": now["_target_"],
        "min_lr": 0.1,
    }


def test_an_older_run_is_evaluated_with_its_images_and_weights(archsmith, old: Path):
    said = archsmith("task=evaluate", f"architecture={old}", "hydra.run.dir=new")
    assert (said.code, said.err) == (0, "")
    new, before = results(Path("new")), results(old)
    for name in ("test_accuracy", "test_images", "data_fingerprint", "parameters", "macs"):
        assert new[name] == before[name], name
    assert (new["strategy"], new["space"], new["data"]) == ("darts", "darts", "synthetic")


def test_an_older_run_is_compared(archsmith, old: Path):
    said = archsmith("task=compare", f"runs={old.parent}")
    assert (said.code, said.err) == (0, "")
    assert "darts" in said.out
    assert "35.6" in said.out  # test accuracy of results.json, 0.35625


@pytest.mark.slow
def test_an_older_architecture_is_retrained_and_exported(archsmith, old: Path):
    said = archsmith(
        "task=retrain", f"architecture={old}", "retrain.epochs=1", "retrain.layers=3",
        "retrain.channels=2", "hydra.run.dir=new",
    )  # fmt: skip
    assert said.code == 0, said.err
    said = archsmith("task=export", f"architecture={old}", "hydra.run.dir=exported")
    assert said.code == 0, said.err
    assert (Path("exported") / "export" / "model.py").is_file()


@pytest.mark.parametrize("target", MOVED.values())
def test_what_old_settings_named_stands_where_it_is_now_looked_for(target: str):
    assert callable(get_object(target))
