"""Going back with a larger weight decay: the sheet robustdarts.md, sections 5 and 10."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from faults.toys import ToySearch, assert_same, at, left_in

from archsmith.errors import Interrupted
from search_spaces.space import Space
from strategies.stopping import eigenvalue
from strategies.stopping.adaptive_decay import AdaptiveDecay
from strategies.strategy import Strategy

FIRST_ORDER = "strategy/update=first_order"  # faster
EPOCHS = 6  # with a growing eigenvalue, from epoch 4 back to epoch 1


@pytest.fixture(autouse=True)
def rising(monkeypatch) -> None:
    """The eigenvalue grows by half in every epoch."""
    monkeypatch.setattr(
        eigenvalue, "alpha_eigenvalue", lambda net, strategy, _: 1.5**strategy.stopping.epoch
    )


def toy(space: Space, *overrides: str) -> ToySearch:
    return ToySearch(space, "rdarts_adaptive", FIRST_ORDER, *overrides)


@pytest.mark.slow
def test_robustdarts_3_a_return_leaves_the_evaluations_up_to_its_epoch(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """Twice from epoch 4 to epoch 1, whose state was kept with the first weight decay."""
    seen: list[tuple[int, float]] = []
    after: list[tuple[list[int], float]] = []
    step, returned = Strategy.step, AdaptiveDecay.returned

    def stepping(self: Strategy, *args: Any, **more: Any) -> Any:
        seen.append((self.stopping.epoch, self.weight_optimizer.param_groups[0]["weight_decay"]))
        return step(self, *args, **more)

    def returning(self: AdaptiveDecay, strategy: Strategy) -> None:
        returned(self, strategy)
        after.append((self.measured[:], self.decay))

    monkeypatch.setattr(Strategy, "step", stepping)
    monkeypatch.setattr(AdaptiveDecay, "returned", returning)
    found = toy(toy_darts).run(tmp_path, epochs=EPOCHS)
    stages = [(range(5), 3e-4), (range(2, 5), 3e-3), (range(2, 6), 3e-2)]
    expected = [(epoch, decay) for epochs, decay in stages for epoch in epochs]
    assert [epoch for epoch, _ in seen[::2]] == [epoch for epoch, _ in expected]
    assert [decay for _, decay in seen[::2]] == pytest.approx([decay for _, decay in expected])
    assert after == [([0, 1], pytest.approx(3e-3)), ([0, 1], pytest.approx(3e-2))]
    assert found.architecture.meta["epoch"] == EPOCHS - 1
    assert len(left_in(tmp_path)["metrics"]) == EPOCHS


def test_the_next_decay_depends_on_the_present_one_alone(toy_darts: Space):
    """0.03 is reached exactly, in spite of rounding, and not exceeded."""
    one = toy(toy_darts)
    one.start()
    stopping, decays = one.strategy.stopping, []
    for _ in itertools.takewhile(lambda _: stopping.may_return, range(9)):
        stopping.found = 0
        stopping.returns_to()
        stopping.returned(one.strategy)
        decays.append(one.strategy.weight_optimizer.param_groups[0]["weight_decay"])
    assert decays == pytest.approx([3e-3, 3e-2])


def test_the_return_that_another_ingredient_asked_for_changes_no_decay(toy_darts: Space):
    one = toy(toy_darts)
    one.start()
    assert one.strategy.stopping.returns_to() is None
    one.strategy.stopping.returned(one.strategy)
    assert one.strategy.weight_optimizer.param_groups[0]["weight_decay"] == 3e-4


@pytest.mark.slow
@pytest.mark.parametrize("stop", [15, 16, 30])
def test_a_search_that_goes_back_resumes_bit_for_bit(stop: int, toy_darts: Space, tmp_path: Path):
    """Asked after each of 2 steps and after each epoch, of 5, 3 and 4 epochs."""
    whole, parts = toy(toy_darts), toy(toy_darts)
    expected = whole.run(tmp_path / "whole", epochs=EPOCHS)
    with pytest.raises(Interrupted):
        parts.run(tmp_path / "parts", epochs=EPOCHS, stop=at(stop))
    found = parts.run(tmp_path / "parts", epochs=EPOCHS)
    assert (found.architecture, found.metrics) == (expected.architecture, expected.metrics)
    assert_same(parts.tensors(), whole.tensors())
    assert left_in(tmp_path / "parts") == left_in(tmp_path / "whole")


@pytest.mark.parametrize("decay", [0, 0.01])
def test_a_weight_decay_that_cannot_grow_is_refused(decay: float, toy_darts: Space):
    one = toy(toy_darts, f"strategy.weight_optimizer.weight_decay={decay}")
    with pytest.raises(ValueError, match=f"stopping.largest: the weight decay .* is {decay}, exp"):
        one.start()


def test_a_growth_of_1_is_refused():
    with pytest.raises(ValueError, match=r"growth: expected .*above 1, found 1\.0"):
        AdaptiveDecay(
            every=0.04, window=0.2, lag=0.16, start=0.2, factor=1.3, growth=1.0, largest=0.03
        )
