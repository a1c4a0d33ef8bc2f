"""A searcher asks and is told: the best is taken, and a stopped search goes on as it was."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from helpers import ROOT

from archsmith import interrupt
from archsmith.data.loader import Loader
from archsmith.data.sets import synthetic
from archsmith.errors import CheckpointError, Interrupted
from archsmith.phases import scores as scoring
from archsmith.result.recipe import Recipe
from archsmith.search.black_box import BlackBoxSearch, scores_in
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Record
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from strategies.searchers.searcher import Searcher


class Noting(RandomSearch):
    """Draws, half by torch's global generator, and notes what it is told."""

    def __init__(self, space: Space, asks: int | None):
        super().__init__(space, asks=asks)
        self.told: list[tuple[str, float]] = []

    def ask(self) -> Architecture:
        for _ in range(int(torch.randint(3, ()))):
            super().ask()
        return super().ask()

    def tell(self, architecture: Architecture, score: float) -> None:
        self.told.append((architecture.identity, score))

    def state_dict(self) -> dict:
        return super().state_dict() | {"told": [list(one) for one in self.told]}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.told = [(name, score) for name, score in state["told"]]


def score(architecture: Architecture, folder: Path) -> float:
    """Depends on the architecture alone; moves the global generator as a training would."""
    torch.manual_seed(0)
    assert Architecture.load(folder / "architecture.json") == architecture
    return int(architecture.identity, 16) / 16**8


def search(searcher: Searcher, folder: Path, *, scored=score, **how: Any) -> BlackBoxSearch:
    checkpoints = Checkpoints(folder / "checkpoints", "search", {})
    how = {"seconds": None, "record": Record(folder), "checkpoints": checkpoints, **how}
    return BlackBoxSearch(searcher, searcher.ask, scored, **how)


def noting(space: Space, asks: int | None = 4) -> Noting:
    torch.manual_seed(1)
    return Noting(space, asks)


def scores(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_the_best_of_all_that_were_asked_for_is_taken(toy_darts: Space, tmp_path: Path):
    searcher = noting(toy_darts)
    best, found = search(searcher, tmp_path).run()
    told = dict(searcher.told)
    assert len(searcher.told) == len(told) == 4
    assert (best, told[found.identity]) == (max(told.values()), max(told.values()))
    lines = scores(tmp_path)
    assert [(line["phase"], line["step"]) for line in lines] == [("search", n) for n in range(4)]
    assert [line["score"] for line in lines] == [score for _, score in searcher.told]
    assert lines[-1]["best_score"] == best


@pytest.mark.parametrize("moment", ["before a score", "after a score"])
def test_stopped_at_every_moment_equals_uninterrupted(
    moment: str, toy_darts: Space, tmp_path: Path, monkeypatch
):
    whole = noting(toy_darts)
    expected = search(whole, tmp_path / "whole").run()

    def stopped(architecture: Architecture, folder: Path) -> float:
        if moment == "before a score" and len(calls) % 2 == 0:
            calls.append(1)
            raise Interrupted("stopped")
        calls.append(1)
        if moment == "after a score":
            interrupt._asked.set()
        return score(architecture, folder)

    calls: list[int] = []
    for attempt in range(20):
        parts = noting(toy_darts)
        if attempt:
            torch.manual_seed(attempt)  # another process starts elsewhere
        try:
            found = search(parts, tmp_path / "parts", scored=stopped).run()
            break
        except Interrupted:
            interrupt._asked.clear()
    interrupt._asked.clear()
    assert attempt >= 3
    assert found == expected
    assert parts.told == whole.told
    assert scores(tmp_path / "parts") == scores(tmp_path / "whole")
    again = search(noting(toy_darts), tmp_path / "parts", scored=lambda *_: pytest.fail("scored"))
    assert again.run() == expected


def test_seconds_end_it_after_the_score_that_exceeds_them(toy_darts: Space, tmp_path: Path):
    ticks = iter([0.0, 6.0, 10.0, 16.0])
    searcher = noting(toy_darts, asks=9)
    search(searcher, tmp_path, seconds=10.0, clock=lambda: next(ticks)).run()
    assert len(searcher.told) == 2


def test_fewer_architectures_than_are_scored_already_end_it(toy_darts: Space, tmp_path: Path):
    whole = search(noting(toy_darts), tmp_path)
    whole.run()
    fewer = noting(toy_darts, 2)
    assert search(fewer, tmp_path).run() == whole.best
    assert len(fewer.told) == 4


def test_a_checkpoint_that_is_not_of_a_searcher_is_refused(toy_darts: Space, tmp_path: Path):
    Checkpoints(tmp_path / "checkpoints", "search", {}).save({"epoch": 1})
    with pytest.raises(CheckpointError, match="search: the checkpoint does not fit this run"):
        search(noting(toy_darts), tmp_path).run()


@pytest.mark.parametrize("asks", [0, 1.5, True, "many"])
def test_a_number_of_architectures_that_makes_no_sense_is_refused(toy_darts: Space, asks):
    with pytest.raises(ValueError, match=r"asks: expected a whole number of at least 1"):
        RandomSearch(toy_darts, asks=asks)


def test_a_score_is_the_accuracy_on_select_images_without_augmentation(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """The data's augmentation is for training; a measured image is the image itself."""
    data = synthetic(
        root=None, size=40, classes=2, channels=3, image_size=8, noise=0.1, seed=0, split=0.5,
        select=0.2, limit=None, augment={"crop": 2, "flip": True, "cutout": 4},
    )  # fmt: skip
    read: dict[str, Loader] = {}

    def trained(space: Space, architecture: Architecture, loader: Loader, *_: Any, **how: Any):
        read["training"] = loader
        return "net"

    def measured(net: str, loader: Loader) -> dict[str, float]:
        read["scoring"] = loader
        return {"accuracy": 0.25}

    monkeypatch.setattr(scoring, "retrain", trained)
    monkeypatch.setattr(scoring, "evaluate", measured)
    monkeypatch.setattr(scoring, "final_space", lambda space, recipe: space)
    settings = yaml.safe_load((ROOT / "conf" / "retrain" / "quick.yaml").read_text())
    settings.pop("_target_", None)
    searcher = noting(toy_darts)
    job = SimpleNamespace(
        data=data, recipe=Recipe(**settings), search=SimpleNamespace(epochs=1), space=toy_darts,
        seed=0, form="reference", device=torch.device("cpu"), computing=None,
    )  # fmt: skip
    run: Any = SimpleNamespace(
        checkpoints=lambda phase, identity: Checkpoints(tmp_path / "c", phase, identity)
    )
    score = scoring.Training(job)  # type: ignore[arg-type]
    score.start(run, {})
    assert score(searcher.ask(), tmp_path) == 0.25
    index = data.split(one_level=True)
    assert read["training"].augment is not None
    assert read["training"].index.tolist() == index["train"].tolist()
    x, y = (torch.cat(part) for part in zip(*read["scoring"], strict=True))
    pixels = torch.cat([images for images, _ in data.images.batches([index["select"]])])
    torch.testing.assert_close(x, data.normalise(pixels))
    assert y.tolist() == data.images.labels[index["select"]].tolist()


class Killed(BaseException):
    """The process ends here: nothing is caught, nothing saved."""


def test_killed_in_a_score_with_the_one_before_unsaved_equals_uninterrupted(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """The run goes back to the score before; what the kill left is of another architecture."""

    def trained(space: Space, architecture: Architecture, *_: Any, checkpoints, **how: Any) -> str:
        saved = checkpoints.load()
        loaded.append((architecture.identity, saved))
        checkpoints.save({"of": architecture.identity})
        if len(loaded) == kill_at:
            raise Killed
        return architecture.identity

    monkeypatch.setattr(scoring, "retrain", trained)
    monkeypatch.setattr(scoring, "evaluate", lambda net, loader: {"accuracy": int(net, 16) / 16**8})
    monkeypatch.setattr(scoring, "final_space", lambda space, recipe: space)
    monkeypatch.setattr(Checkpoints, "due", lambda self, **how: False)
    roles = SimpleNamespace(train=None, select=None)
    monkeypatch.setattr(scoring.Training, "roles", lambda self: roles)
    monkeypatch.setattr(scoring.Training, "recipe", lambda self: None)
    job = SimpleNamespace(space=toy_darts, seed=0, computing=None, data=None)

    def run(folder: Path) -> tuple[float, Architecture]:
        scored = scoring.Training(job)  # type: ignore[arg-type]
        scored.of_run, scored.run = (
            {"strategy": "noting"},
            SimpleNamespace(  # type: ignore
                checkpoints=lambda phase, identity: Checkpoints(folder / "c", phase, identity)
            ),
        )
        return search(noting(toy_darts), folder, scored=scored).run()

    loaded: list[tuple[str, Any]] = []
    kill_at = 0
    expected = run(tmp_path / "whole")
    kill_at = len(loaded) + 2
    with pytest.raises(Killed):
        run(tmp_path / "parts")
    killed, kill_at = len(loaded), 0
    assert run(tmp_path / "parts") == expected
    assert loaded[killed][0] == loaded[0][0]  # it went back
    assert all(saved is None or saved["of"] == identity for identity, saved in loaded)
    assert not list((tmp_path / "parts" / "c").iterdir())


def test_seconds_are_those_of_the_scores_and_the_first_of_equals_is_the_best(
    toy_darts: Space, tmp_path: Path
):
    """Each score takes 0.12345 s by this clock; the search may take 0.3 s."""
    ticks = iter([at for start in (5.0, 7.0, 9.0, 11.0) for at in (start, start + 0.12345)])
    searcher, clock = Noting(toy_darts, asks=9), lambda: next(ticks)
    found = search(searcher, tmp_path, scored=lambda *_: 0.5, seconds=0.3, clock=clock)
    score, best = found.run()
    assert (score, best.identity) == (0.5, searcher.told[0][0])
    assert found.spent == pytest.approx(3 * 0.12345)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["seconds"] for line in lines] == [0.123] * 3


def test_the_time_budget_includes_what_was_spent_before(toy_darts: Space, tmp_path: Path):
    """By a clock that a score advances by a second: 2 of 5 seconds are left, then none."""
    now = 0.0

    def slow(architecture: Architecture, folder: Path) -> float:
        nonlocal now
        now += 1.0
        return score(architecture, folder)

    for spent, scored in ((3.0, 2), (9.0, 1)):
        searcher, folder = noting(toy_darts, asks=None), tmp_path / str(spent)
        how = {"seconds": 5.0, "spent": spent, "clock": lambda: now}
        search(searcher, folder, scored=slow, **how).run()
        assert len(searcher.told) == scored


def test_the_scores_of_a_search_are_read_from_its_folder(toy_darts: Space, tmp_path: Path):
    searcher = noting(toy_darts)
    search(searcher, tmp_path).run()
    Record(tmp_path).log("supernet", 0, {"train_loss": 1.0})
    assert scores_in(tmp_path) == [score for _, score in searcher.told]


def test_a_quick_score_is_logged_if_it_is_the_best_and_a_slow_one_always(
    toy_darts: Space, tmp_path: Path, caplog
):
    """Four scores that take 0.4 s by this clock, then four that take 0.5 s."""
    given = [0.3, 0.2, 0.4, 0.1]
    for took, logged in ((0.4, [1, 3]), (0.5, [1, 2, 3, 4])):
        at = iter([round(i // 2 + took * (i % 2), 3) for i in range(8)])
        scores, folder = iter(given), tmp_path / str(took)
        caplog.clear()
        with caplog.at_level("INFO"):
            search(
                noting(toy_darts),
                folder,
                scored=lambda *_, s=scores: next(s),
                clock=lambda at=at: next(at),
            ).run()
        said = [r.args[0] for r in caplog.records if r.msg.startswith("search: score")]
        assert said == logged


def test_a_checkpoint_is_due_after_a_score_as_after_an_epoch(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    asked = []

    def noting_due(self, *, epoch_over: bool = False) -> bool:
        asked.append(epoch_over)
        return False

    monkeypatch.setattr(Checkpoints, "due", noting_due)
    search(noting(toy_darts), tmp_path).run()
    assert asked == [True] * 4
