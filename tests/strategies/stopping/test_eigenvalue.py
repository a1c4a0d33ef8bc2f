"""Early stopping on the eigenvalue: the sheet robustdarts.md, sections 3, 5 and 10."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.toys import ToySearch, assert_same, at, left_in
from test_every_config import make

from archsmith.errors import Interrupted
from search_spaces.space import Space
from strategies.stopping import eigenvalue
from strategies.stopping.eigenvalue import Eigenvalue, fixed_batch

PAPER = dict(every=0.04, window=0.2, lag=0.16, start=0.2, factor=1.3)
FIRST_ORDER = "strategy/update=first_order"  # faster
Values = Callable[[int], float]  # of an epoch (from 0)


def decided(value: Values, monkeypatch: pytest.MonkeyPatch, epochs: float = 50) -> Any:
    """The epoch after which a search stops, and the epoch of its result; None where none is."""
    stopping = Eigenvalue(**PAPER)
    monkeypatch.setattr(eigenvalue, "fixed_batch", lambda _: None)
    monkeypatch.setattr(eigenvalue, "alpha_eigenvalue", lambda *_: value(stopping.epoch))
    stopping.setup(None, None)
    for epoch in range(math.ceil(epochs)):
        stopping.epoch_start(epoch, epochs)
        if stopping.epoch_end(None, None, None, min(1.0, (epoch + 1) / epochs)):
            return epoch, stopping.result()
    assert stopping.result() is None
    return None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (lambda e: 0.3, None),
        (lambda e: 0.2 if e < 20 else 0.4, (22, 10)),
        (lambda e: 0.2 if e < 30 else 0.4, (32, 20)),
        (lambda e: 0.1 + 0.01 * e, (22, 10)),
        (lambda e: 0.3 + 0.005 * e, None),
        (lambda e: 0.1 * 1.03**e, None),  # 1.03^8 = 1.267
        (lambda e: 0.1 * 1.04**e, (22, 10)),
    ],
)
def test_robustdarts_3_when_a_search_of_50_epochs_stops(value: Values, expected, monkeypatch):
    assert decided(value, monkeypatch) == expected


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(5, None), (6, (4, 1)), (25, (11, 5)), (100, (44, 20)), (7.5, (5, 2))],
)
def test_a_search_of_any_length_may_stop_from_6_epochs_on(epochs: float, expected, monkeypatch):
    assert decided(lambda e: 2.0**e, monkeypatch, epochs) == expected


@pytest.mark.parametrize("value", [lambda e: 0.0, lambda e: -(2.0**e), lambda e: e - 30.0])
def test_nothing_rises_from_a_mean_that_is_not_positive(value: Values, monkeypatch):
    found = decided(value, monkeypatch)
    assert found is None or found[1] >= 30


def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eigenvalue grows by half in every epoch."""
    monkeypatch.setattr(
        eigenvalue, "alpha_eigenvalue", lambda net, strategy, _: 1.5**strategy.stopping.epoch
    )


@pytest.mark.slow
def test_the_result_of_a_search_is_the_architecture_of_the_epoch_before_the_rise(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    rising(monkeypatch)
    toy = ToySearch(toy_darts, "rdarts_es", FIRST_ORDER)
    found = toy.run(tmp_path, epochs=6)
    assert found.architecture.meta["epoch"] == 1
    assert len(left_in(tmp_path)["metrics"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("stop", [8, 14])
def test_a_search_that_stops_early_resumes_bit_for_bit(
    stop: int, toy_darts: Space, tmp_path: Path, monkeypatch
):
    """Asked after each of 2 steps and after each epoch: within the third epoch, before the last."""
    rising(monkeypatch)
    whole, parts = (ToySearch(toy_darts, "rdarts_es", FIRST_ORDER) for _ in range(2))
    expected = whole.run(tmp_path / "whole", epochs=6)
    with pytest.raises(Interrupted):
        parts.run(tmp_path / "parts", epochs=6, stop=at(stop))
    found = parts.run(tmp_path / "parts", epochs=6)
    assert (found.architecture, found.metrics) == (expected.architecture, expected.metrics)
    assert_same(parts.tensors(), whole.tensors())
    assert left_in(tmp_path / "parts") == left_in(tmp_path / "whole")


def test_measuring_moves_no_loader_no_statistics_and_no_generator(toy_darts: Space):
    search = ToySearch(toy_darts, "rdarts_es").state()
    stopping = search.strategy.stopping
    stopping.epoch_start(0, 6)
    before = copy.deepcopy(search.state_dict())
    random = torch.get_rng_state()
    assert stopping.epoch_end(search.net, search.strategy, search.roles, 1 / 6) is False
    assert stopping.values[0] > 0
    after = search.state_dict()
    assert after["loaders"] == before["loaders"]
    assert_same(search.net.state_dict(), before["net"])
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("one_level", [False, True])
def test_the_batch_is_the_same_in_every_epoch(one_level: bool, toy_darts: Space):
    toy = ToySearch(toy_darts, "rdarts_es")
    toy.start()
    roles = make(toy.config.data).loaders(8, one_level=one_level, seed=0)
    loader = roles.train if one_level else roles.val
    first = fixed_batch(roles)
    list(loader)  # an epoch goes by
    assert all(torch.equal(a, b) for a, b in zip(first, fixed_batch(roles), strict=True))
    drawn = loader.drawn(0, 0)
    assert torch.equal(first[0], loader.normalise(loader.images.take(torch.tensor(drawn))._pixels))
    assert first[1].tolist() == loader.images.labels[drawn].tolist()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("every", 0.0, "above 0"), ("lag", 1.0, "below 1"), ("factor", 0.9, "at least 1")],
)
def test_a_setting_out_of_its_range_is_refused(name: str, value: float, said: str):
    with pytest.raises(ValueError, match=f"{name}: expected .*{said}"):
        Eigenvalue(**(PAPER | {name: value}))
