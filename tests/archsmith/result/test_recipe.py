import math
from dataclasses import replace

import pytest
import yaml
from helpers import ROOT
from test_every_config import composed, make

from archsmith.result.recipe import Recipe

CONF = ROOT / "conf" / "retrain"
TOY = Recipe(
    layers=3, channels=8, stem=None, epochs=3, batch_size=8, lr=0.05, min_lr=0.0, schedule="cosine",
    warmup_epochs=0, momentum=0.9, nesterov=True, weight_decay=1e-3, clip=5.0, label_smoothing=0.1,
    auxiliary_weight=0.4, drop_path=0.3, crop=2, flip=True, cutout=4, ema=0.8, precision="float32",
)  # fmt: skip


def conf(name: str) -> Recipe:
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    del settings["_target_"]
    return Recipe(**settings)


def test_cosine_of_darts():
    recipe = conf("cifar")  # lr 0.025 to 0 in 600 epochs
    found = [recipe.lr_at(e) for e in (0, 150, 300, 450)]
    assert found == pytest.approx([0.025, 0.021338835, 0.0125, 0.003661165])


def test_cosine_ends_at_min_lr():
    recipe = replace(TOY, lr=0.1, min_lr=0.02, epochs=2)
    assert [recipe.lr_at(0), recipe.lr_at(1), recipe.lr_at(2)] == pytest.approx([0.1, 0.06, 0.02])


def test_exponential_of_darts_on_imagenet_multiplies_by_0_97():
    recipe = conf("imagenet")
    found = [recipe.lr_at(e) for e in (0, 1, 2, 249)]
    assert found == pytest.approx([0.1, 0.097, 0.09409, 0.1 * 0.97**249], rel=1e-5)


def test_linear_of_pc_darts_on_imagenet_warms_up_and_flattens():
    changes = dict(batch_size=1024, lr=0.5, min_lr=0.0, schedule="linear", warmup_epochs=5)
    recipe = replace(conf("imagenet"), **changes)
    found = [recipe.lr_at(e) for e in (0, 3, 4, 5, 100, 244, 245, 249)]
    expected = [0.5 / 5, 0.5 * 242 / 245 * 4 / 5, 0.5 * 241 / 245, 0.5 * 240 / 245,
                0.5 * 145 / 245, 0.5 / 245, 0.5 / 245, 0.5 / 1225]  # fmt: skip
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (0, ".1 .090236 .075953 .059447 .04292 .028072 .015976 .007174 .001868 .0001"),
        (3, ".025075 .05005 .075025 .1 .075558 .052807 .030994 .014025 .003588 .0001"),
    ],
)
def test_sharpdarts_1_cosine_power_of_a_retraining(warmup: int, expected: str):
    changes = dict(schedule="cosine_power", epochs=10, warmup_epochs=warmup, power=2.0)
    recipe = replace(TOY, lr=0.1, min_lr=1e-4, **changes)
    found = [recipe.lr_at(e) for e in range(10)]
    assert found == pytest.approx([float(x) for x in expected.split()], abs=6e-7)


@pytest.mark.parametrize(("epochs", "expected"), [(1, [0.1]), (3, [0.05, 0.1, 0]), (2, [0.1, 0])])
def test_cosine_power_leaves_an_epoch_behind_a_warmup_of_all(epochs: int, expected: list[float]):
    changes = dict(schedule="cosine_power", epochs=epochs, warmup_epochs=epochs)
    recipe = replace(TOY, lr=0.1, min_lr=0.0, **changes)
    assert [recipe.lr_at(e) for e in range(epochs)] == pytest.approx(expected)


def test_sharpdarts_1_another_power_is_another_schedule():
    slow, fast = (
        replace(TOY, schedule="cosine_power", epochs=10, power=power) for power in (1.0, 10.0)
    )
    assert slow.lr_at(4) > 1.5 * fast.lr_at(4)


@pytest.mark.parametrize("epochs", [1, 2, 3, 9])
def test_linear_of_a_short_run_falls_and_stays_positive(epochs):
    recipe = replace(TOY, lr=1.0, schedule="linear", epochs=epochs)
    found = [recipe.lr_at(e) for e in range(epochs)]
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0


def test_drop_path_rises_linearly():
    recipe = conf("cifar")
    found = [recipe.drop_path_at(e) for e in (0, 300, 599)]
    assert found == pytest.approx([0.0, 0.1, 0.2 * 599 / 600])


def test_sizes_and_augmentation_of_null_are_left_to_space_and_data():
    assert conf("cifar").size == {"layers": 20, "channels": 36}
    assert conf("imagenet").size == {"layers": 14, "channels": 48, "stem": "imagenet"}
    assert conf("imagenet").augment == {"cutout": 0}
    assert conf("cifar").augment == {"crop": 4, "flip": True, "cutout": 16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, r"^epochs: expected a whole number of at least 1, found 0"),
        ({"epochs": True}, r"^epochs: expected a whole number"),
        ({"batch_size": 1}, r"^batch_size: expected a whole number of at least 2, found 1"),
        ({"layers": 2.0}, r"^layers: expected a whole number of at least 1 or null"),
        (
            {"lr": "3e-4"},
            r"^lr: expected a number above 0, found '3e-4', a word in YAML; .* as 3\.0e-4",
        ),
        ({"lr": math.nan}, r"^lr: expected a finite number above 0"),
        ({"lr": math.inf}, r"^lr: expected a finite number above 0"),
        ({"momentum": 1}, r"^momentum: expected a number of at least 0 and below 1"),
        ({"schedule": "step"}, r"one of cosine, cosine_power, exponential, linear, found 'step'"),
        ({"precision": "float16"}, r"one of float32, bfloat16, found 'float16'"),
        ({"power": 0.5}, r"^power: expected a number of at least 1 and at most 1000, found 0.5"),
        ({"clip": 0}, r"^clip: expected a number above 0 or null, found 0"),
        ({"ema": 1.0}, r"^ema: expected a number above 0 and below 1 or null, found 1.0"),
        ({"flip": 1}, r"^flip: expected true or false or null, found 1"),
        ({"drop_path": 1.0}, r"^drop_path"),
        ({"min_lr": 0.1}, r"^min_lr: 0.1 is above lr=0.05; lower it"),
        ({"schedule": "exponential"}, r"^min_lr: 0 is never approached.*schedule to cosine"),
        ({"warmup_epochs": 4}, r"^warmup_epochs: 4 is above epochs=3; lower it"),
        ({"momentum": 0.0}, r"^nesterov: needs momentum above 0"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TOY, **changes)


def test_tas_a_retraining_has_300_epochs_after_its_warm_up_and_a_teacher():
    recipe = make(composed("retrain=tas").retrain)
    assert recipe.size == {}
    assert (recipe.epochs - recipe.warmup_epochs, recipe.teacher) == (300, "full")
    assert recipe.lr_at(0) == pytest.approx(0.02)
    assert max(map(recipe.lr_at, range(305))) == pytest.approx(0.1, rel=1e-3)
    assert recipe.lr_at(304) < 1e-5
