"""What is refused before a run begins asks for what is not given already."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT
from test_every_config import composed, make

from archsmith.cli.preflight import _check_step, _say_of_classes, some_architecture
from archsmith.errors import ConfigError

CPU = torch.device("cpu")


def too_small(*_: object, **__: object) -> None:
    raise RuntimeError("Calculated padded input size per channel: (1 x 1)")


@pytest.mark.parametrize(
    ("stem", "remedy"), [("imagenet", "set retrain.stem=small"), ("small", "give larger images")]
)
def test_c3_images_too_small_for_a_network(toy_darts, monkeypatch, stem: str, remedy: str):
    monkeypatch.setattr("archsmith.cli.preflight.final_network", too_small)
    space = replace(toy_darts, stem=stem)
    with pytest.raises(ConfigError, match=f"16x16 images are too small .*; {remedy}"):
        _check_step(space, some_architecture(space), make(composed().retrain), CPU)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted((ROOT / "conf" / "retrain").glob("*.yaml")), ids=str)
def test_a_step_of_every_recipe_works_and_moves_no_random_stream(toy_darts, recipe: Path):
    settings = composed(
        f"retrain={recipe.stem}", "retrain.layers=3", "retrain.channels=4", "retrain.ema=0.9"
    ).retrain
    before = torch.get_rng_state()
    _check_step(toy_darts, some_architecture(toy_darts), make(settings), CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("counts", "weights", "said"),
    [((30, 3), None, 1), ((29, 3), None, 0), ((30, 3), "balanced", 0)],
)
def test_unbalanced_classes_without_weights_are_said(caplog, counts, weights, said: int):
    labels = torch.arange(2).repeat_interleave(torch.tensor(counts))
    data = SimpleNamespace(images=SimpleNamespace(labels=labels))
    recipe = replace(make(composed().retrain), class_weights=weights)
    _say_of_classes(SimpleNamespace(data=data, recipe=recipe))
    assert (
        caplog.text.count("counts 10 times as much as the smallest; with retrain.class_w") == said
    )
