"""The commands on transformers, to the end: search, retrain, evaluate, export; refusals."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

TEXT = (
    "space=gpt", "data=text", "data.root=some.txt", "data.context=8", "data.limit=60",
    "space.depths=[1,2]", "space.widths=[8,12]", "space.heads=[1,2]", "space.head_dim=4",
    "space.ratios=[1.0,2.0]", "search.epochs=1", "search.batch_size=8", "retrain.epochs=2",
    "retrain.batch_size=8", "retrain.warmup_epochs=0", "loggers=[]", "hydra.run.dir=run",
)  # fmt: skip
IMAGES = (
    "space=vit", "data=synthetic", "data.size=40", "data.image_size=8", "space.depths=[1,2]",
    "space.widths=[8,12]", "space.patch=4", "space.head_dim=4", "search.epochs=1",
    "search.batch_size=8", "retrain=transformer", "retrain.epochs=1", "retrain.warmup_epochs=0",
    "baseline=none", "loggers=[]", "hydra.run.dir=run",
)  # fmt: skip


@pytest.fixture
def some_text(tmp_path: Path) -> Path:
    path = tmp_path / "some.txt"
    path.write_text("the cat sat on the mat,\nand the hen in the pen; " * 20, encoding="utf-8")
    return path


def results(tmp_path: Path) -> dict:
    found: dict = json.loads((tmp_path / "run" / "results.json").read_text())
    return found


def generated(tmp_path: Path, *arguments: str) -> str:
    file = tmp_path / "run" / "export" / "model.py"
    command = [sys.executable, "-I", str(file), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_decoder_goes_through_all_phases(archsmith, some_text: Path, tmp_path: Path):
    said = archsmith(*TEXT, "strategy=drnas", "baseline=random", "baseline.count=1")
    assert said.code == 0, said.err
    told = results(tmp_path)
    bits = told["test_bits_per_character"]
    assert 0 < bits < 2 * math.log2(25)
    assert f"bits per character (retrained)  {bits:.3f}" in said.out
    rival = told["baseline"]["random_0"]["test_bits_per_character"]
    assert f"{rival:.3f} bits per character" in said.out
    assert told["test_mistakes"] is None
    assert f"needs {bits:.3f} bits" in (tmp_path / "run" / "report.html").read_text()
    exported = json.loads((tmp_path / "run" / "export" / "export.json").read_text())
    for form in ("standalone", "pt2"):
        assert exported["forms"][form]["max_abs_difference"] <= exported["check"]["tolerance"]
    assert "bits per character" in (tmp_path / "run" / "export" / "README.md").read_text()

    first = generated(tmp_path, "the cat", "--length", "30", "--seed", "3")
    assert first == generated(tmp_path, "the cat", "--length", "30", "--seed", "3")
    assert first != generated(tmp_path, "the cat", "--length", "30", "--seed", "4")
    assert first.startswith("the cat")
    assert len(first) == len("the cat") + 30 + len("\n")
    assert set(first) <= set(some_text.read_text())
    assert "parameters" in generated(tmp_path)

    again = archsmith(*TEXT, "strategy=drnas", "baseline=random", "baseline.count=1")
    assert "retrain: finished before" in again.err + again.out
    said = archsmith("task=evaluate", "architecture=run", "loggers=[]", "hydra.run.dir=again")
    assert said.code == 0, said.err
    evaluated = json.loads((tmp_path / "again" / "results.json").read_text())
    assert evaluated["test_bits_per_character"] == pytest.approx(bits, rel=1e-5)
    said = archsmith("task=export", "architecture=run", "export.formats=[standalone]")
    assert said.code == 0, said.err
    said = archsmith("task=predict", "architecture=run", "images=some.txt")
    assert said.code == 2
    assert "this network reads text" in said.err


def test_the_weights_file_says_all_that_the_text_needs(archsmith, some_text: Path, tmp_path: Path):
    said = archsmith(*TEXT, "strategy=random", "task=all", "export.formats=[]")
    assert said.code == 0, said.err
    with safe_open(tmp_path / "run" / "weights.safetensors", "pt") as file:
        about = json.loads(file.metadata()["archsmith"])
    assert about["preprocessing"]["resize"] == "characters"
    assert set(about["preprocessing"]["classes"][2:]) <= set(some_text.read_text())
    assert about["preprocessing"]["input_shape"] == [1, 1, 8]


@pytest.mark.parametrize("strategy", ["gdas", "tas"])
def test_a_vision_transformer_goes_through_all_phases(archsmith, tmp_path: Path, strategy: str):
    said = archsmith(*IMAGES, f"strategy={strategy}", "retrain.teacher=full")
    assert said.code == 0, said.err
    assert results(tmp_path)["test_accuracy"] is not None
    assert results(tmp_path)["test_bits_per_character"] is None
    torch.save(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / "image.pt")
    assert "image.pt: " in generated(tmp_path, str(tmp_path / "image.pt"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("space=tas", "data=text"), "space: tas reads images, and data=text is text"),
        (("space=gpt",), "space: gpt reads text, and data=digits is images; set data=text"),
        (("space=gpt", "data=text", "baseline=resnet18"), "set baseline=random"),
        (("space=gpt", "data=text", "strategy=pcdarts"), "set strategy/mixed_op=full"),
        (("space=gpt", "data=text", "retrain.flip=true"), "retrain.flip: text is not augmented"),
        (
            ("space=gpt", "data=text", "retrain.class_weights=balanced"),
            "retrain.class_weights: characters are not weighted",
        ),
        (("space=gpt", "data=text", "budget.macs=1M"), "costs of options do not add up"),
        (("space=vit", "retrain.optimizer=adamw"), "retrain.nesterov: belongs to optimizer=sgd"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(archsmith, given: tuple, message: str):
    said = archsmith(*given, "loggers=[]", "hydra.run.dir=run")
    assert said.code == 2
    assert message in said.err.splitlines()[-1]


def test_a_check_speaks_of_characters(archsmith, some_text: Path):
    said = archsmith(*TEXT, "task=check", "strategy=darts")
    assert said.code == 0, said.err
    assert "in windows of 8" in said.out
    assert "stem" not in said.out
