"""Sheet ddarts.md, section 6: a search from a given architecture, until its distance settles."""

from typing import Any

import pytest
import torch
from test_every_config import composed, make

from search_spaces.architecture import Architecture
from search_spaces.distance import distance
from search_spaces.space import Space
from strategies.stopping.settled import Settled, residual
from strategies.strategy import Strategy
from supernets.network import supernet


@pytest.fixture
def tiny(toy_darts: Space) -> Space:
    names = ["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3"]
    return toy_darts.resize(nodes=1, candidates=names, share_alphas=False)


def ready(space: Space, *overrides: str) -> Strategy:
    strategy = make(composed("strategy=dartopti", *overrides).strategy, space=space)
    strategy.setup(supernet(space, strategy.mixed_op), torch.device("cpu"))
    return strategy


def test_without_a_start_cells_are_residual(tiny: Space):
    assert residual(tiny.choices["00_normal"]) == {"0-2": ["skip_connect"], "1-2": ["sep_conv_3x3"]}
    two = tiny.resize(nodes=2, candidates=["max_pool_3x3", "none"]).choices["00_normal"]
    assert residual(two) == {name: ["max_pool_3x3"] for name in ("0-2", "1-2", "0-3", "2-3")}


def test_a_target_with_one_row_gets_its_convolution(toy_nasbench201: Space):
    kept = residual(toy_nasbench201.choices["cell"])
    assert kept["0-1"] == ["nor_conv_1x1"]


def test_alphas_are_ten_on_the_start_and_zero_elsewhere(tiny: Space):
    strategy = ready(tiny)
    for alphas in strategy.alphas.values():
        assert alphas.tolist() == [[0, 0, 10, 0], [0, 0, 0, 10]]
    found = strategy.architecture()
    assert found == Architecture.of(tiny, {n: residual(c) for n, c in tiny.choices.items()})


@pytest.mark.slow
def test_a_file_of_shared_cells_starts_every_layer(tiny: Space, tmp_path):
    shared = tiny.resize(share_alphas=True, layers=7)
    start = Architecture.of(
        shared, {"normal": {"0-2": ["max_pool_3x3"]}, "reduce": {"1-2": ["skip_connect"]}}
    )
    start.save(tmp_path / "architecture.json")
    for given in (tmp_path / "architecture.json", tmp_path):
        strategy = ready(tiny, f"strategy.stopping.start={given}")
        assert strategy.alphas["00_normal"].tolist() == [[0, 10, 0, 0], [0, 0, 0, 0]]
        assert strategy.alphas["02_reduce"].tolist() == [[0, 0, 0, 0], [0, 0, 10, 0]]


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ("DARTS_V2", r"stopping: start: architecture: .*(no row|unknown option)"),
        ("DARTS_V3", r"stopping: start: .*no published one is named 'DARTS_V3'"),
    ],
)
def test_what_does_not_fit_or_exist_is_refused(tiny: Space, start: str, line: str):
    with pytest.raises(ValueError, match=line.replace(r"stopping: ", r"stopping[.:] ?")):
        ready(tiny, f"strategy.stopping.start={start}")


def stops(distances: list[float], *, warmup: int = 0, **settings: Any) -> int | None:
    """The epoch (from 0) after which it stops, given the distance after each."""
    settings = {"start": None, "alpha": 10.0, "tolerance": 0.001, "epochs": 4} | settings
    part = Settled(**settings)
    part.distance, part.unchanged, part.moves = 0.0, 0, lambda epoch, epochs: epoch >= warmup
    for epoch, now in enumerate(distances):
        part.epoch_start(epoch, len(distances))
        part._now = lambda strategy, now=now: now  # type: ignore[method-assign, misc]
        nothing: Any = None
        if part.epoch_end(nothing, nothing, nothing, 0.0):
            return epoch
    return None


def test_it_stops_after_four_epochs_at_one_distance():
    assert stops([0.1, 0.2, 0.2, 0.2005, 0.2, 0.2, 0.3]) == 5
    assert stops([0.1, 0.2, 0.2, 0.2, 0.202, 0.202, 0.202, 0.202, 0.202]) == 8
    assert stops([0.1, 0.2, 0.2], epochs=1) == 2


def test_it_does_not_stop_before_it_has_left_its_start():
    assert stops([0.0] * 10) is None


def test_epochs_in_which_alphas_stand_still_do_not_count():
    assert stops([0.1] * 10, warmup=5) == 8


def test_the_distance_is_that_of_the_architecture_from_the_start(tiny: Space):
    strategy = ready(tiny)
    part, nothing = strategy.stopping, Any
    assert isinstance(part, Settled)
    with torch.no_grad():
        strategy.alphas["00_normal"].copy_(torch.tensor([[0.0, 20, 0, 0], [0, 0, 0, 20]]))
    part.epoch_end(nothing, strategy, nothing, 0.5)
    assert part.distance == pytest.approx(2 / 3 / 3)  # pool for skip, of three options; 3 cells
    assert part.distance == distance(part.start, strategy.architecture(), tiny)


def test_a_resumed_search_counts_on(tiny: Space):
    strategy, again = ready(tiny), ready(tiny)
    part, other = strategy.stopping, again.stopping
    assert isinstance(part, Settled)
    assert isinstance(other, Settled)
    part.distance, part.unchanged = 0.25, 3
    with torch.no_grad():
        strategy.alphas["00_normal"].add_(1.0)
    again.load_state_dict(strategy.state_dict())
    assert (other.distance, other.unchanged) == (0.25, 3)
    assert torch.equal(again.alphas["00_normal"], strategy.alphas["00_normal"])


def test_weights_are_trained_alone_for_a_tenth_of_the_epochs(tiny: Space):
    strategy = ready(tiny)
    assert [strategy.alphas_move(epoch, 50) for epoch in (4, 5)] == [False, True]
