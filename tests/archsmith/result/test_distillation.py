"""Knowledge distillation: its loss, and whole runs with a teacher.

Sources: Hinton et al. 2015, arXiv:1503.02531; Dong & Yang 2019, arXiv:1905.09717, section 3.3.
"""

import json
from typing import Any

import pytest
import torch
from test_command_line import TINY, line_of
from torch import nn

from archsmith.phases import final
from archsmith.result.distillation import distillation
from archsmith.result.recipe import Recipe
from archsmith.result.retrain import Retraining
from search_spaces.architecture import Architecture
from search_spaces.resnets import tas
from supernets.network import Network

RECIPE = Recipe(
    layers=None, channels=None, stem=None, epochs=1, batch_size=4, lr=0.1, min_lr=0.0,
    schedule="cosine", warmup_epochs=0, momentum=0.0, nesterov=False, weight_decay=0.0, clip=None,
    label_smoothing=0.0, auxiliary_weight=0.0, drop_path=0.0, crop=None, flip=None, cutout=None,
    ema=None, precision="float32", teacher="full",
)  # fmt: skip


def test_tas_distillation_by_hand():
    """T = 4: softmax(ln 81 / 4, 0) = (3/4, 1/4) against (1/2, 1/2)."""
    taught, found = torch.tensor([[81.0, 1.0]]).log(), torch.zeros(1, 2)
    expected = 16 * (0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log())
    torch.testing.assert_close(distillation(found, taught, 4.0), expected)


def test_equal_logits_up_to_a_constant_cost_nothing():
    logits = torch.randn(3, 5)
    assert distillation(logits + 2.0, logits, 4.0).item() == pytest.approx(0.0, abs=1e-5)


def test_tas_the_loss_is_nine_tenths_the_teacher():
    torch.manual_seed(0)
    net, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    match, main = distillation(net(x), teacher(x), 4.0), nn.functional.cross_entropy(net(x), y)
    loss, found, _ = Retraining(net, [], RECIPE, teacher)._losses(x, y)
    torch.testing.assert_close(loss, 0.9 * match + 0.1 * main)
    torch.testing.assert_close(found, main)
    loss.backward()
    assert teacher.weight.grad is None
    assert not teacher.training
    alone, _, _ = Retraining(net, [], RECIPE)._losses(x, y)
    torch.testing.assert_close(alone, main)


@pytest.mark.slow
def test_a_space_without_an_unpruned_network_is_one_line(archsmith):
    said = archsmith(*TINY, "retrain.teacher=full")
    assert said.code == 2
    assert "retrain.teacher: space darts has no unpruned network" in line_of(said)


ON_WIDTHS = [
    *(one for one in TINY if not one.startswith(("space.layers", "space.nodes", "retrain.layers"))),
    *("space=tas", "space.depth=8", "retrain.layers=null"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retrain.layers=5", "retrain.layers: space tas has no such size, found 5"),
        ("retrain.auxiliary_weight=0.4", "auxiliary_weight: expected 0, as space tas"),
        ("retrain.drop_path=0.1", "retrain.drop_path: expected 0 in space tas"),
        ("budget.macs=1k", "budget: costs of options do not add up in space tas"),
        ("strategy=pcdarts", "set strategy/mixed_op=full"),
        ("strategy=goldnas", "of which space tas takes one"),
        ("space.depth=9", "space.depth: expected 6 n + 2"),
    ],
)
def test_what_the_space_cannot_is_one_line(archsmith, override: str, message: str):
    said = archsmith(*ON_WIDTHS, "strategy=tas", override)
    assert said.code == 2
    assert message in line_of(said)


@pytest.mark.parametrize(
    ("overrides", "helps"),
    [
        (["strategy=darts", "budget.macs=1k"], True),
        (["strategy=darts", "budget.params=1k"], False),
        (["strategy=annealed", "strategy/update=one_level", "budget.macs=1k"], False),
        (["strategy=random", "budget.macs=1k"], False),
    ],
)
def test_a_loss_is_recommended_only_where_it_replaces_the_budget(archsmith, overrides, helps):
    said = archsmith(*ON_WIDTHS, *overrides)
    assert said.code == 2
    told = line_of(said)
    assert "space tas; leave the budget out" in told
    assert told.endswith("out, and set strategy/losses=macs_band" if helps else "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tas", "darts", "gdas", "drnas", "annealed", "random"])
def test_a_run_on_widths_ends_with_an_export(archsmith, tmp_path, name: str):
    given = [f"strategy={name}", "export.formats=[standalone,onnx]", f"hydra.run.dir={tmp_path}"]
    assert archsmith(*ON_WIDTHS, *given).code == 0
    forms = json.loads((tmp_path / "export" / "export.json").read_text())["forms"]
    assert forms["standalone"]["max_abs_difference"] == 0.0
    assert "file" in forms["onnx"]


@pytest.mark.slow
def test_a_trained_teacher_is_kept(archsmith, tmp_path, monkeypatch):
    given = [*ON_WIDTHS, "strategy=random", "retrain.teacher=full", "export.formats=[]"]
    assert archsmith(*given, f"hydra.run.dir={tmp_path}").code == 0
    before = (tmp_path / "teacher.safetensors").read_bytes()
    weights = (tmp_path / "weights.safetensors").read_bytes()
    trained = final.retrain

    def retrain_taught(*args: Any, teacher: Network | None = None, **kwargs: Any) -> Network:
        assert teacher is not None, "a teacher is trained again"
        return trained(*args, teacher=teacher, **kwargs)

    monkeypatch.setattr(final, "retrain", retrain_taught)
    for temperature in (4.0, 2.0):
        phases = json.loads((tmp_path / "phases.json").read_text())
        del phases["retrain"]
        (tmp_path / "phases.json").write_text(json.dumps(phases))
        again = ["task=retrain", f"retrain.temperature={temperature}", "resume=force"]
        assert archsmith(*given, *again, f"hydra.run.dir={tmp_path}").code == 0
        assert (tmp_path / "teacher.safetensors").read_bytes() == before
        same = (tmp_path / "weights.safetensors").read_bytes() == weights
        assert same == (temperature == 4.0)


def test_a_teacher_is_trained_again_for_another_network_or_recipe_alone():
    def identity(depth: int, **recipe: Any) -> dict[str, Any]:
        space = tas(depth=depth, channels=4, widths=[0.5, 1], input_shape=(1, 8, 8), classes=2)
        settings = {
            "retrain": {"lr": 0.1, "teacher": "full", "temperature": 4.0} | recipe,
            "seed": 0,
        }
        return final.teacher_identity(settings, Architecture.of(space, space.unpruned))

    assert identity(8) == identity(8, temperature=2.0, distillation=0.5)
    assert identity(8) != identity(14)
    assert identity(8) != identity(8, lr=0.2)
