"""Where a network is wrong: numbers worked out by hand."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from archsmith.data.loader import Normalise
from archsmith.result.mistakes import MOST, Mistakes
from archsmith.result.outcome import wilson

PLAIN = Normalise(torch.tensor([0.5]), torch.tensor([0.25]))


def logits(*rows: tuple[int, float]) -> torch.Tensor:
    """Three classes: (answer, confidence) per row, the rest shared equally."""
    shares = torch.tensor(
        [[p if k == answer else (1 - p) / 2 for k in range(3)] for answer, p in rows]
    )
    return shares.log()


def filled() -> Mistakes:
    """Labels 0 0 1 | 1 2: answers 0 1 1 | 0 2, confidences 0.95 0.9 0.5 | 0.7 0.55."""
    found = Mistakes(["a", "b", "c"], PLAIN, lambda position: f"{position}.png")
    images = torch.arange(5).view(5, 1, 1, 1) * torch.ones(1, 1, 2, 2) / 10
    found.add(images[:3], torch.tensor([0, 0, 1]), logits((0, 0.95), (1, 0.9), (1, 0.5)))
    found.add(images[3:], torch.tensor([1, 2]), logits((0, 0.7), (2, 0.55)))
    return found


def test_confusion_and_accuracy_by_class():
    told = filled().told()
    assert told["confusion"] == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert [one["name"] for one in told["classes"]] == ["a", "b", "c"]
    assert [one["images"] for one in told["classes"]] == [2, 2, 1]
    assert [one["accuracy"] for one in told["classes"]] == [0.5, 0.5, 1.0]
    assert told["classes"][0]["interval"] == pytest.approx(wilson(0.5, 2))
    json.dumps(told)


def test_the_surest_mistakes_come_first_with_their_names():
    assert filled().told()["surest"] == [
        {"image": "1.png", "is": "a", "answer": "b", "confidence": pytest.approx(0.9)},
        {"image": "3.png", "is": "b", "answer": "a", "confidence": pytest.approx(0.7)},
    ]


def test_calibration_by_tenths():
    told = filled().told()["calibration"]
    # tenths: 0.5 and 0.55 right, 0.7 wrong, 0.9 wrong, 0.95 right
    by_hand = (2 * abs(1 - 0.525) + 1 * abs(0 - 0.7) + 2 * abs(0.5 - 0.925)) / 5
    assert told["error"] == pytest.approx(by_hand)
    assert [one["images"] for one in told["bins"]] == [0, 0, 0, 0, 0, 2, 0, 1, 0, 2]
    assert told["bins"][0] == {"images": 0, "accuracy": None, "confidence": None}
    assert told["bins"][9] == {
        "images": 2, "accuracy": 0.5, "confidence": pytest.approx(0.925),
    }  # fmt: skip


def test_images_are_written_as_they_were(tmp_path: Path):
    found = filled()
    (tmp_path / "mistakes").mkdir()
    (tmp_path / "mistakes" / "07.png").touch()  # of an earlier run
    found.save(tmp_path)
    assert sorted(path.name for path in (tmp_path / "mistakes").iterdir()) == ["00.png", "01.png"]
    with Image.open(tmp_path / "mistakes" / "00.png") as image:  # 1.png: 0.1 * 0.25 + 0.5
        assert image.mode == "L"
        assert image.getpixel((0, 0)) == round(255 * 0.525)


def test_a_dozen_is_kept_of_all_batches():
    found = Mistakes(["a", "b", "c"], PLAIN, str)
    for batch in range(4):
        shares = [(1, 0.5 + (batch * 5 + i) / 100) for i in range(5)]
        found.add(torch.zeros(5, 1, 2, 2), torch.zeros(5).long(), logits(*shares))
    kept = found.told()["surest"]
    assert [one["image"] for one in kept] == [str(i) for i in range(19, 19 - MOST, -1)]


def test_a_class_without_images_and_too_many_classes():
    names = [str(i) for i in range(101)]
    found = Mistakes(names, PLAIN, str)
    found.add(torch.zeros(1, 1, 2, 2), torch.tensor([3]), torch.eye(101)[3:4] * 9)
    told = found.told()
    assert told["confusion"] is None
    assert told["classes"][0] == {"name": "0", "images": 0, "accuracy": None, "interval": None}
    assert told["surest"] == []
