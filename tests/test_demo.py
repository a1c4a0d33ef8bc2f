"""The demo: what it runs by default, and that nothing else takes its settings."""

from pathlib import Path

import pytest
import torch
from test_every_config import make
from test_given_run import a_run, composed
from torch.utils.data import TensorDataset

from archsmith.cli import naming
from archsmith.errors import ConfigError, DataError
from archsmith.library import _job
from archsmith.result.baseline import HandDesigned, RandomArchitectures, Several
from archsmith.result.pretrained import Pretrained
from search_spaces.darts import darts
from strategies.searchers.random import RandomSearch

BESIDE = [RandomArchitectures(5), HandDesigned("resnet18", "parameters")]
FOUND = darts(
    layers=3, nodes=1, channels=4, candidates=["skip_connect", "sep_conv_3x3"],
    input_shape=(1, 8, 8), classes=3,
)  # fmt: skip


def test_it_trains_random_cells_and_a_hand_made_network_beside_the_found_one():
    config = composed()
    assert config.data.limit == 200
    assert (config.search.epochs, config.search.batch_size) == (20, 16)
    assert list(make(config.baseline).baselines) == BESIDE
    assert config.strategy.alpha_lr_scale == 700
    assert composed("strategy.alpha_lr_scale=7").strategy.alpha_lr_scale == 7
    assert composed("strategy=gdas").strategy.alpha_lr_scale == 30


@pytest.mark.parametrize(
    ("overrides", "epochs", "limit"),
    [
        (["data=synthetic"], 6, None),
        (["data=folder", "data.root=photos"], 6, None),
        (["experiment=paper"], 50, None),
        (["baseline=none"], 20, 200),
        (["search.epochs=3", "data.limit=50", "baseline=none"], 3, 50),
    ],
)
def test_others_take_nothing_of_it(overrides: list[str], epochs: int, limit: int | None):
    config = composed(*overrides)
    assert (config.baseline, config.search.epochs, config.data.limit) == (None, epochs, limit)
    assert (config.strategy.alpha_lr_scale == 700) == (limit is not None)


def test_a_baseline_that_is_chosen_counts():
    assert make(composed("baseline=resnet18").baseline) == BESIDE[1]
    both = make(composed("baseline=random_and_resnet18", "data=synthetic").baseline)
    assert list(both.baselines) == BESIDE


def test_images_of_a_given_run_get_no_networks_beside(tmp_path: Path):
    config = composed("task=all", f"architecture={a_run(tmp_path / 'r')}")
    assert config.baseline is not None
    assert naming.inherited(config, config.hydra).baseline is None
    chosen = composed(f"architecture={tmp_path / 'r'}", "baseline=random")
    assert naming.inherited(chosen, chosen.hydra).baseline.count == 5


def test_find_takes_nothing_of_it(tmp_path: Path):
    images = TensorDataset(torch.rand(40, 3, 8, 8), torch.arange(40) % 2)
    job = _job(images, None, {}, ["device=cpu"], tmp_path)
    assert (job.search.epochs, job.baseline, job.names["data"]) == (6, None, "own")
    with pytest.raises(ConfigError, match=r"data: unknown 'x'"):
        _job(images, None, {}, ["data=x"], tmp_path)


def test_several_baselines_follow_each_other():
    several = Several([RandomArchitectures(2), HandDesigned("resnet18", "macs")])
    draw = RandomSearch(FOUND).ask
    rivals = list(several.rivals(draw(), FOUND, draw, auxiliary=False))
    assert [rival.name for rival in rivals] == ["random_0", "random_1", "resnet18"]
    assert rivals[0].identity != rivals[1].identity


def test_several_baselines_are_all_checked_before_a_run(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    missing = Pretrained("resnet18", download=False, image_size=None)
    with pytest.raises(DataError, match=r"no file .*; set baseline.download=true"):
        Several([RandomArchitectures(2), missing]).check(FOUND)
