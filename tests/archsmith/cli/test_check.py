"""`task=check`: what is there, what it will take, and nothing left behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_command_line import TINY, image_tree, line_of

from archsmith.cli.check import suggested_stem, warnings_of
from archsmith.cli.check_text import check_text, duration
from archsmith.data.survey import survey
from search_spaces.darts import darts
from search_spaces.nasbench201 import nasbench201

SIZES = dict(channels=4, candidates=["skip_connect"], classes=3)


def damage(root: Path) -> list[Path]:
    """Two files that cannot be read, one of them a test image."""
    bad = [root / "test" / "class_0" / "1.png", root / "train" / "class_1" / "z.jpg"]
    bad[0].write_bytes(bad[0].read_bytes()[:60])
    bad[1].write_text("no image")
    return bad


def test_a_survey_counts_every_file_and_names_the_bad_ones(tmp_path: Path):
    image_tree(tmp_path, 2)
    grey = Image.fromarray(np.zeros((10, 7), np.uint8))
    grey.save(tmp_path / "train" / "class_0" / "grey.png")
    np.save(tmp_path / "test" / "class_1" / "a.npy", np.zeros((8, 8, 3), np.uint8))
    found = survey(str(tmp_path), None, None, None, "abort", 0)
    assert found.images == {
        "train": {"class_0": 7, "class_1": 6},
        "test": {"class_0": 6, "class_1": 7},
    }
    assert found.sizes == {"train": {"8x8": 12, "10x7": 1}, "test": {"8x8": 13}}
    assert found.modes == {"train": {"RGB": 12, "L": 1}, "test": {"RGB": 12, "npy x3": 1}}
    assert (found.unreadable, found.refused) == ({"train": [], "test": []}, False)

    assert found.passed_over.counts == {}

    (tmp_path / "train" / "class_0" / "a.heic").write_text("")
    assert survey(str(tmp_path), None, None, None, "abort", 0).passed_over.counts == {
        "of suffix .heic": 1
    }
    bad = damage(tmp_path)
    found = survey(str(tmp_path), None, None, None, "abort", 0)
    named = {part: [reason.split(" (")[0] for reason in r] for part, r in found.unreadable.items()}
    assert named == {"test": [str(bad[0])], "train": [str(bad[1])]}
    assert found.refused


@pytest.mark.parametrize(("on_error", "refused"), [("abort", True), ("skip", False)])
def test_one_in_a_hundred_may_be_skipped(tmp_path: Path, on_error: str, refused: bool):
    image_tree(tmp_path, 2, images=50)
    (tmp_path / "train" / "class_0" / "7.png").write_text("no image")
    assert survey(str(tmp_path), None, None, None, on_error, 0).refused == refused


@pytest.mark.parametrize(
    ("side", "stems", "suggested", "remedy"),
    [
        (32, ("small", "small"), "small", None),
        (127, ("small", "small"), "small", None),
        (128, ("small", "small"), "imagenet", "space.stem=imagenet retrain.stem=imagenet"),
        (224, ("small", "imagenet"), "imagenet", "space.stem=imagenet retrain.stem=imagenet"),
        (224, ("imagenet", "imagenet"), "imagenet", None),
        (32, ("small", "imagenet"), "small", "space.stem=small retrain.stem=small"),
    ],
)
def test_the_stem_follows_the_smaller_side(side, stems, suggested, remedy):
    spaces = [
        darts(layers=3, nodes=1, stem=stem, input_shape=(3, side, side + 40), **SIZES)
        for stem in stems
    ]
    told = suggested_stem(*spaces)
    assert (told["suggested"], told["set"]) == (suggested, remedy)


def test_a_space_without_a_choice_of_stems_suggests_smaller_images():
    space = nasbench201(layers=5, nodes=3, input_shape=(3, 224, 224), **SIZES)
    assert "data.image_size=32" in suggested_stem(space, space)["set"]


def test_warnings():
    stem = {"set": None, "suggested": "small"}

    def told(*counts: int, skipped: int = 0, weights: str | None = None) -> list[str]:
        train = {f"c{i}": count for i, count in enumerate(counts)}
        data = {"train": train, "skipped": skipped, "input_shape": [3, 8, 8]}
        return warnings_of({"data": data, "stem": stem, "class_weights": weights})

    assert told(30, 11) == []
    (line,) = told(20, 60)
    assert line == (
        "imbalanced: 'c1' has 60 images, 'c0' 20; set retrain.class_weights=balanced, read "
        "test_balanced_accuracy, or add images"
    )
    (line,) = told(20, 60, weights="balanced")
    assert line == (
        "imbalanced: 'c1' has 60 images, 'c0' 20; read test_balanced_accuracy, or add images"
    )
    assert told(9, 10) == ["'c0' has 9 images: too few to learn or to measure"]
    assert told(10, 10, skipped=2) == ["2 unreadable images are left out"]


def test_durations():
    assert [duration(s) for s in (40, 99.6, 720, 5999, 12600)] == [
        "40 s", "100 s", "12 min", "100 min", "3.5 h",
    ]  # fmt: skip


def test_bad_files_are_all_named_before_anything_else(archsmith, tmp_path: Path):
    image_tree(tmp_path / "images", 2)
    bad = damage(tmp_path / "images")
    for name in ("a.heic", "b.HEIC"):
        (tmp_path / "images" / "train" / "class_0" / name).write_text("")
    said = archsmith(
        *TINY[-8:], "task=check", "data=folder", "data.root=images", "data.workers=0",
        "hydra.run.dir=d",
    )  # fmt: skip
    assert said.code == 3
    assert "2 images cannot be read" in line_of(said)
    text = Path("d/preflight.txt").read_text()
    assert all(f"cannot be read: {path.relative_to(tmp_path)}" in text for path in bad)
    assert "passed over: 2 of suffix .heic (as train/class_0/a.heic)" in text
    assert json.loads(Path("d/preflight.json").read_text())["ready"] is False


@pytest.mark.slow
def test_a_check_tells_time_and_memory_and_leaves_nothing_behind(archsmith):
    said = archsmith(*TINY, "task=check", "hydra.run.dir=d")
    assert said.code == 0, said.err
    report = json.loads(Path("d/preflight.json").read_text())
    assert said.out.strip() == check_text(report).strip()
    for phase in ("search", "retrain"):
        seconds = report[phase]["seconds"]
        assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
        assert report[phase]["peak_memory_bytes"] > 0
    assert report["search"]["steps_an_epoch"] == 2  # 24 of 48 images by 16
    assert report["retrain"]["steps_an_epoch"] == 3
    assert report["data"]["train"] == {"0": 16, "1": 16, "2": 16}
    assert report["command"].endswith("hydra.run.dir=d")
    assert "task=check" not in report["command"]
    left = {path.name for path in Path("d").iterdir()} - {".hydra", ".lock", "run.log"}
    assert left == {"preflight.json", "preflight.txt"}


@pytest.mark.slow
def test_a_check_changes_no_result(archsmith):
    for name in ("checked", "plain"):
        if name == "checked":
            assert archsmith(*TINY, "task=check", f"hydra.run.dir={name}").code == 0
        assert archsmith(*TINY, "task=search", f"hydra.run.dir={name}").code == 0
    checked, plain = (Path(n, "architecture.json").read_bytes() for n in ("checked", "plain"))
    assert checked == plain


def searched(archsmith, *overrides: str) -> tuple[dict, str]:
    """What a check of a random search reports of it, as data and as its line."""
    said = archsmith(*TINY, "strategy=random", *overrides, "task=check", "hydra.run.dir=d")
    assert said.code == 0, said.err
    (line,) = [line for line in said.out.splitlines() if line.startswith("search ")]
    return json.loads(Path("d/preflight.json").read_text())["search"], line


@pytest.mark.slow
def test_a_check_of_a_searcher_without_scores_says_that_nothing_is_trained(archsmith):
    told, line = searched(archsmith)
    assert told == {"scores": 0}
    assert line == "search    one architecture without a score: nothing is trained"


@pytest.mark.slow
def test_a_check_of_a_searcher_tells_what_its_scores_take(archsmith, monkeypatch):
    """A step takes 1 s; a score is 2 epochs of steps and an evaluation at a third of a step."""
    monkeypatch.setattr("archsmith.cli.expected.timed", lambda *_: [1.0])
    monkeypatch.setattr("archsmith.cli.expected._loading", lambda loader: 0.0)
    told, line = searched(archsmith, "strategy.asks=5", "search.epochs=2")
    score = 2 * told["steps_an_epoch"] + 1 / 3  # all select images are one batch
    assert (told["scores"], told["epochs"]) == (5, 2)
    assert told["seconds"] == pytest.approx(dict.fromkeys(("median", "low", "high"), 5 * score))
    assert line.startswith(f"search    5 trainings of 2 epochs of {told['steps_an_epoch']} steps: ")
    seconds = f"search.seconds={1.5 * score}"
    assert searched(archsmith, "strategy.asks=5", "search.epochs=2", seconds)[0]["scores"] == 2
