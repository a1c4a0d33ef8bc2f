"""F23 to F26, F55: numbers that are no longer finite, and runs that learn nothing."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.toys import Killed, ToySearch, image_tree

from archsmith.errors import NumbersError
from archsmith.search.diagnosis import degenerate
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.finite import READ_EVERY, Watch, judged_at, largest, not_learning
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.strategy import Strategy
from strategies.update.first_order import FirstOrder

HUGE = torch.finfo(torch.float32).max


def poisoned_step(monkeypatch, step: int, poison) -> None:
    """`poison(strategy, metrics)` after that step of a search."""
    real, taken = Strategy.step, 0

    def stepping(self, *args, **more):
        nonlocal taken
        taken += 1
        metrics = real(self, *args, **more)
        if taken == step:
            poison(self, metrics)
        return metrics

    monkeypatch.setattr(Strategy, "step", stepping)


def last_good(folder: Path) -> dict:
    state = Checkpoints(folder / "checkpoints", "search", {}).load()
    assert state is not None
    assert all(t.isfinite().all() for t in state["net"].values() if t.is_floating_point())
    assert all(t.isfinite().all() for t in state["strategy"]["arch"].values())
    return state


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_f24_a_loss_is_found_in_its_step_with_its_images(
    value: float, toy_darts: Space, tmp_path: Path, monkeypatch
):
    poisoned_step(monkeypatch, 3, lambda _, metrics: metrics["train_loss"].fill_(value))
    with pytest.raises(NumbersError, match=r"epoch 2, step 1: the train_loss is (nan|inf); lower"):
        ToySearch(toy_darts, "darts").run(tmp_path, every_seconds=0)
    state = last_good(tmp_path)
    assert (state["epoch"], state["step"]) == (1, 0)
    listed = json.loads((tmp_path / "not_finite.json").read_text())
    assert (listed["epoch"], listed["step"], listed["what"]) == (2, 1, "train_loss")
    assert {role: len(images) for role, images in listed["images"].items()} == {
        "train": 8,
        "val": 8,
    }


def test_f25_alpha_gradients_are_found_though_weights_are_fine(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    real, taken = FirstOrder.alpha_gradients, 0

    def poisoned(self, strategy, *args):
        nonlocal taken
        taken += 1
        loss = real(self, strategy, *args)
        if taken == 2:
            strategy.arch_parameters()[0].grad[0, 0] = math.nan
        return loss

    monkeypatch.setattr(FirstOrder, "alpha_gradients", poisoned)
    toy = ToySearch(toy_darts, "darts")
    with pytest.raises(
        NumbersError,
        match=r"epoch 1, step 2: the gradient of the alphas is nan; .*strategy.alpha_optimizer.lr",
    ):
        toy.run(tmp_path, every_seconds=0)
    assert last_good(tmp_path)["step"] == 1
    assert not (tmp_path / "architectures").exists()  # no architecture is read from NaN


def test_f24_a_weight_that_nothing_uses_is_found_before_it_is_saved(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    def poison(strategy: Strategy, _: dict) -> None:
        with torch.no_grad():
            strategy.weights[0].view(-1)[0] = math.inf

    poisoned_step(monkeypatch, 2, poison)
    with pytest.raises(NumbersError, match=r"epoch 1: 'stem\.\S+' is no longer finite"):
        ToySearch(toy_darts, "darts").run(tmp_path, every_seconds=0)
    assert last_good(tmp_path)["step"] == 1


def test_a_search_goes_on_after_the_remedy(toy_darts: Space, tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patch:
        poisoned_step(patch, 2, lambda _, metrics: metrics["train_loss"].fill_(math.nan))
        with pytest.raises(NumbersError):
            ToySearch(toy_darts, "darts").run(tmp_path, every_seconds=0)
    taken = []

    def count(*_: object) -> None:
        taken.append(1)
        raise Killed

    poisoned_step(monkeypatch, 1, count)
    with pytest.raises(Killed):
        ToySearch(toy_darts, "darts").run(tmp_path)
    assert last_good(tmp_path)["step"] == 1


def test_largest_is_exact_about_what_is_finite():
    assert largest([]).item() == 0
    assert largest([torch.tensor([1.0, -3.0]), torch.tensor(2.0)]).item() == 3
    assert math.isfinite(largest([torch.full((9,), HUGE)]))
    assert math.isnan(largest([torch.tensor([1.0, math.nan]), torch.ones(2)]))
    assert math.isinf(largest([torch.ones(2), torch.tensor([-math.inf])]))


def test_a_device_that_works_by_itself_is_asked_every_ten_steps(tmp_path: Path, monkeypatch):
    read = []
    real = Watch.read
    monkeypatch.setattr(Watch, "read", lambda self: (read.append(len(self._seen)), real(self)))

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

    watch = Watch("search", "lower it", tmp_path, {})
    for step in range(1, 2 * READ_EVERY + 1):
        watch.see(1, step, {"loss": torch.tensor(1.0).as_subclass(Elsewhere)})
    assert read == [READ_EVERY] * 2
    watch.see(2, 1, {"loss": torch.tensor(math.nan).as_subclass(Elsewhere)})
    with pytest.raises(NumbersError, match="search epoch 2, step 1: the loss is nan; lower it"):
        watch.check(2, {})


def test_f26_guessing_after_an_epoch_is_a_warning_with_causes(
    toy_darts: Space, tmp_path: Path, caplog
):
    toy = ToySearch(toy_darts, "darts", "strategy.weight_optimizer.lr=25.0", "strategy.clip=1e-6")
    with caplog.at_level(logging.WARNING):
        toy.run(tmp_path, epochs=1)
    assert "not learning" in caplog.text
    assert "strategy.weight_optimizer.lr" in caplog.text
    assert not_learning(1.0, 0.1, 10, "retrain.lr") is None
    assert "2.303" in str(not_learning(2.3, 0.1, 10, "retrain.lr"))


def test_c10_a_loss_that_holds_a_price_is_judged_by_the_accuracy_too():
    """Of ten classes 0.28 is a fifth of the way from guessing to all right."""
    assert not_learning(3.5, 0.815, 10, "retrain.lr") is None
    assert not_learning(3.5, 0.29, 10, "retrain.lr") is None
    assert not_learning(3.5, 0.27, 10, "retrain.lr") is not None
    assert not_learning(0.69, 0.55, 2, "retrain.lr") is not None


def test_c10_a_short_run_is_judged_when_its_first_steps_are_over():
    assert judged_at(epochs=20, steps=11) == 4  # 55 steps
    assert judged_at(epochs=3, steps=11) == 2  # its last
    assert judged_at(epochs=20, steps=200) == 0


def test_f23_an_image_that_is_not_bytes_is_named(archsmith, tmp_path: Path):
    image_tree(tmp_path / "i")
    bad = tmp_path / "i" / "train" / "class_0" / "nan.npy"
    np.save(bad, np.full((8, 8, 3), math.nan, np.float32))
    said = archsmith("data=folder", f"data.root={tmp_path / 'i'}")
    assert said.code == 3
    assert f"{bad} (float32 of shape (8, 8, 3), expected uint8" in said.err


def forced(space: Space, candidate: str) -> Architecture:
    choices = {
        group: {edge.name: (candidate,) for edge in cell.edges if edge.target == cell.targets[0]}
        for group, cell in space.groups.items()
    }
    return Architecture.of(space, choices)


def test_f55_collapse_and_isolation_are_named_with_causes(toy_darts: Space):
    assert "cut off" in str(degenerate(toy_darts, forced(toy_darts, "none")))
    skips = degenerate(toy_darts, forced(toy_darts, "skip_connect"))
    assert "every kept candidate is parameter-free (skip connections)" in str(skips)
    assert degenerate(toy_darts, forced(toy_darts, "sep_conv_3x3")) is None


@pytest.mark.slow
def test_f55_a_collapse_on_the_way_is_said_once(
    toy_darts: Space, tmp_path: Path, monkeypatch, caplog
):
    """Skip connections win from the second of four epochs on; in the first, alphas stand still."""
    toy = ToySearch(toy_darts, "darts", "strategy.warmup=0.25")
    real = Strategy.epoch_end

    def collapsing(self, *args):
        skip = self.space.groups["normal"].edges[0].names.index("skip_connect")
        with torch.no_grad():
            for alpha in self.alphas.values():
                alpha[:, skip] += 50.0
        return real(self, *args)

    monkeypatch.setattr(Strategy, "epoch_end", collapsing)
    with caplog.at_level(logging.WARNING):
        toy.run(tmp_path, epochs=4)
    said = [r.getMessage() for r in caplog.records if "parameter-free" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("search epoch 2/4: collapse: every kept candidate is parameter-free")
    assert "strategy/losses=[beta_decay]" in said[0]
