"""`task=check` on large images measures only what is plausible (issue 11, C4)."""

import json
from pathlib import Path

import pytest
import torch
from test_command_line import TINY

from archsmith.cli import estimate as estimating
from archsmith.cli.estimate import Estimate, estimated, shrunk
from archsmith.train.available import Memory
from search_spaces.darts import darts

CPU = torch.device("cpu")
SIZES = dict(layers=3, nodes=1, channels=4, candidates=["skip_connect"], classes=3)


@pytest.mark.parametrize(
    ("stem", "sides", "small", "ratio"),
    [
        ("small", (512, 640), (32, 40), 256),
        ("small", (127, 640), (127, 640), 1),
        ("imagenet", (512, 640), (128, 160), 16),
        ("imagenet", (224, 224), (224, 224), 1),
        ("small", (130, 200), (32, 50), 130 * 200 / (32 * 50)),
    ],
)
def test_c4_large_images_are_shrunk_as_far_as_the_stem_allows(stem, sides, small, ratio):
    space, found = shrunk(darts(**SIZES, stem=stem, input_shape=(3, *sides)))
    assert (space.input_shape, found) == ((3, *small), ratio)


def test_an_estimate_grows_with_the_area(monkeypatch):
    """A step of 1 s and 0.5 s an image, on 2 and 16 images; 100 images take 51 s by that line."""
    monkeypatch.setattr(estimating, "timed", lambda size, device, clock: [9.0, 1 + size / 2])
    monkeypatch.setattr(estimating, "step_memory", lambda prepared, parts: lambda n: int(7 * n))
    found = estimated(lambda size: size, 100, 1, CPU)
    assert (found.bytes, found.low) == (700, 51.0)
    assert found.high == pytest.approx(9 * 100 / 16)


@pytest.mark.parametrize(
    ("bytes_", "high", "plausible"), [(50, 5.0, True), (51, 5.0, False), (50, 5.1, False)]
)
def test_c4_a_step_is_measured_where_it_is_short_and_small(bytes_, high, plausible):
    assert Estimate(bytes_, 1.0, high).plausible(Memory(free=100, total=1000)) == plausible


@pytest.mark.slow
def test_the_estimate_of_memory_is_near_what_a_step_at_full_size_takes(monkeypatch):
    """One convolution's map and its batch norm's: in proportion to the pixels."""
    monkeypatch.setattr(estimating, "timed", lambda *_: [1.0])

    def prepared(side: int):
        def of(images: int):
            x, w = torch.randn(images, 3, side, side), torch.randn(4, 3, 3, 3, requires_grad=True)
            return lambda: torch.nn.functional.conv2d(x, w, padding=1).relu().square().sum()

        return of

    few, whole = (estimated(prepared(side), n, 1, CPU).bytes for side, n in ((32, 64), (128, 4)))
    assert few == pytest.approx(whole, rel=0.01)


@pytest.mark.slow
def test_c4_what_would_take_long_is_estimated_alone(archsmith, monkeypatch):
    monkeypatch.setattr("archsmith.cli.estimate.PLAUSIBLE", 0.0)
    for name in ("timed_epoch", "_retraining_steps"):
        monkeypatch.setattr(f"archsmith.cli.expected.{name}", lambda *_: pytest.fail("measured"))
    large = [one for one in TINY if "image_size" not in one]
    said = archsmith(*large, "data.image_size=128", "task=check", "hydra.run.dir=d")
    assert said.code == 0, said.err
    report = json.loads(Path("d/preflight.json").read_text())
    for phase in ("search", "retrain"):
        seconds = report[phase]["seconds"]
        assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
        assert report[phase]["measured"] is False
    assert said.out.count("GB, estimated from small images") == 2
