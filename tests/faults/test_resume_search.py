"""F1, F3, F19, F20, F21: whatever the moment and the strategy, a resumed search is the same."""

import copy
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.toys import STRATEGIES, Killed, ToySearch, assert_same, at, left_in, scramble

from archsmith.errors import Interrupted
from archsmith.train.random_state import random_state, set_random_state
from search_spaces.space import Space
from strategies.strategy import Strategy

QUICK = ("pcdarts",)
SLOW = ("darts_second_order", "goldnas")
ALL = [
    pytest.param(
        n,
        marks=[] if n in QUICK else [pytest.mark.slow if n in SLOW else pytest.mark.exhaustive],
    )
    for n in STRATEGIES
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_f03_stopped_after_every_single_step_equals_uninterrupted(
    name: str, toy_darts: Space, tmp_path: Path
):
    whole, parts = ToySearch(toy_darts, name), ToySearch(toy_darts, name)
    expected = whole.run(tmp_path / "whole")
    stops = 0
    while stops < 20:
        try:
            found = parts.run(tmp_path / "parts", stop=lambda: True)
            break
        except Interrupted:
            stops += 1
    assert 4 <= stops < 20
    assert (found.architecture, found.metrics) == (expected.architecture, expected.metrics)
    assert_same(parts.tensors(), whole.tensors())
    assert left_in(tmp_path / "parts") == left_in(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("every_seconds", [0.0, 60.0])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ALL)
def test_f01_killed_within_a_step_equals_uninterrupted(
    name: str, step: int, every_seconds: float, toy_darts: Space, tmp_path: Path, monkeypatch
):
    """Half of a step is done; the checkpoint is that of the step or of the epoch before."""
    whole, parts = ToySearch(toy_darts, name), ToySearch(toy_darts, name)
    expected = whole.run(tmp_path / "whole")
    real, taken = Strategy.step, 0

    def dying(self, *args, **more):
        nonlocal taken
        taken += 1
        found = real(self, *args, **more)
        if taken == step:
            raise Killed
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Strategy, "step", dying)
        with pytest.raises(Killed):
            parts.run(tmp_path / "parts", every_seconds=every_seconds)
    found = parts.run(tmp_path / "parts")
    assert (found.architecture, found.metrics) == (expected.architecture, expected.metrics)
    assert_same(parts.tensors(), whole.tensors())
    assert left_in(tmp_path / "parts") == left_in(tmp_path / "whole")


@pytest.mark.slow
def test_f17_after_the_last_epoch_nothing_is_trained(toy_darts: Space, tmp_path: Path, monkeypatch):
    toy = ToySearch(toy_darts, "darts")
    expected = toy.run(tmp_path)
    before = left_in(tmp_path)
    monkeypatch.setattr(Strategy, "step", lambda *_, **__: pytest.fail("a step was made"))
    assert toy.run(tmp_path).metrics == expected.metrics
    assert left_in(tmp_path) == before


def test_f18_more_epochs_by_force_follow_the_new_schedule(toy_darts: Space, tmp_path: Path, caplog):
    def settings(epochs: int) -> dict[str, Any]:
        return {"search": {"epochs": epochs, "score": "training", "signal": False}}

    toy = ToySearch(toy_darts, "darts")
    toy.run(tmp_path, identity=settings(2))
    with caplog.at_level(logging.INFO):
        toy.run(tmp_path, epochs=3, identity=settings(3), force=True)
    assert "differing in search.epochs; taken all the same" in caplog.text
    assert "continued in epoch 3 of 3" in caplog.text
    rates = [line["lr"] for line in left_in(tmp_path)["metrics"]]
    assert len(rates) == 3
    low, high = toy.strategy.min_lr, toy.strategy.weight_lr[0]
    assert rates[2] == pytest.approx(low + (high - low) / 4)  # (1 + cos(2/3 pi)) / 2


@pytest.mark.slow
def test_f19_schedules_go_on_where_they_were(toy_darts: Space, tmp_path: Path, monkeypatch):
    """Temperature, learning rates and the warm-up, step by step."""
    seen: list[tuple[float, ...]] = []
    real = Strategy.step

    def noting(self, *args, progress, move_alphas, **more):
        found = real(self, *args, progress=progress, move_alphas=move_alphas, **more)
        temperature = float(self.relaxation.temperature)
        rates = [o.param_groups[0]["lr"] for o in (self.weight_optimizer, self.alpha_optimizer)]
        seen.append((progress, move_alphas, temperature, *rates))
        return found

    monkeypatch.setattr(Strategy, "step", noting)
    ToySearch(toy_darts, "annealed", "strategy.warmup=0.5").run(tmp_path / "whole")
    whole = seen[:]
    seen.clear()
    for k in (1, 2, 1, 99):
        try:
            toy = ToySearch(toy_darts, "annealed", "strategy.warmup=0.5")
            toy.run(tmp_path / "parts", stop=at(k))
        except Interrupted:
            continue
    assert seen == whole
    assert len(whole) == 4


def test_f20_moments_return_to_the_alpha_of_their_name(toy_darts: Space, tmp_path: Path):
    toy = ToySearch(toy_darts, "pcdarts")
    with pytest.raises(Interrupted):
        toy.run(tmp_path, stop=at(4))
    named = toy.strategy.state_dict()
    assert set(named["alpha_optimizer"]["state"]) == set(named["arch"])
    other = ToySearch(toy_darts, "pcdarts")
    with pytest.raises(Interrupted):
        other.run(tmp_path, stop=at(1))
    state = other.strategy.alpha_optimizer.state
    for name, parameter in other.strategy.named_arch_parameters().items():
        assert int(state[parameter]["step"]) == 2, name


@pytest.mark.slow
@pytest.mark.parametrize("role", ["train", pytest.param("val", marks=pytest.mark.slow)])
def test_f21_no_image_twice_and_none_left_out(role: str, toy_darts: Space, tmp_path: Path):
    seen: list[torch.Tensor] = []

    class Noting(ToySearch):
        def run(self, *args, **more):
            real = Strategy.step

            def step(strategy, net, train, val, **rest):
                seen.append((train if role == "train" else val)[0])
                return real(strategy, net, train, val, **rest)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Strategy, "step", step)
                return super().run(*args, **more)

    Noting(toy_darts, "darts").run(tmp_path / "whole")
    whole = seen[:]
    seen.clear()
    for _ in range(10):
        try:
            Noting(toy_darts, "darts").run(tmp_path / "parts", stop=lambda: True)
            break
        except Interrupted:
            continue
    assert len(seen) == len(whole)
    assert all(torch.equal(a, b) for a, b in zip(seen, whole, strict=True))


def test_f16_generators_of_devices_that_are_not_here_are_passed_over():
    state = random_state()
    torch.rand(1)
    other = state | {"cuda": [torch.zeros(16, dtype=torch.uint8)] * 8}
    set_random_state(other)
    assert all(torch.equal(a, b) for a, b in [(random_state()["torch"], state["torch"])])


@pytest.mark.parametrize(
    ("name", "candidate"), [("gdas", "none"), ("drnas", "none"), ("darts", "noise")]
)
def test_f01_what_is_drawn_goes_on_where_it_was(name: str, candidate: str, toy_darts: Space):
    """Three steps, and the third again from what the second left: the same gates, or the same
    noise, are drawn."""
    toy = ToySearch(toy_darts, name)
    toy.space = toy.space.resize(candidates=[candidate, "skip_connect", "sep_conv_3x3"])
    state = toy.state()

    def step() -> list[torch.Tensor]:
        x, y = torch.ones(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
        toy.strategy.step(toy.net, (x, y), (x, y), progress=0.5, move_alphas=True)
        tensors = (*toy.strategy.arch_parameters(), *toy.net.parameters())
        return [t.detach().clone() for t in tensors]

    for _ in range(2):
        step()
    saved = copy.deepcopy(state.state_dict())
    expected = step()
    scramble(7)
    state.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(step(), expected, strict=True))
    state.load_state_dict(saved)
    scramble(7)  # otherwise it would not matter what is drawn
    assert not all(torch.equal(a, b) for a, b in zip(step(), expected, strict=True))


def test_every_generator_goes_on_where_it_was():
    state = random_state()
    drawn = [torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random()]]
    set_random_state(state)
    assert [torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random()]] == drawn
