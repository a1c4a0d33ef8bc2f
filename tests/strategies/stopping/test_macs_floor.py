"""The floor and the plateaus: the sheet goldnas.md, section 4 and its bugs 2 and 3."""

import copy
from typing import Any

import pytest
import torch
from test_every_config import composed, make

from search_spaces.architecture import Architecture
from search_spaces.goldnas import CANDIDATES, goldnas
from search_spaces.space import Space
from strategies.stopping.macs_floor import MacsFloor
from strategies.strategy import Strategy
from supernets.costs import macs
from supernets.final_costs import total
from supernets.network import Network, final_network, supernet


def toy() -> Space:
    return goldnas(
        layers=3,
        nodes=1,
        channels=4,
        candidates=list(CANDIDATES),
        input_shape=(3, 8, 8),
        classes=3,
    )


def ready(**settings: float) -> tuple[MacsFloor, Strategy, Network]:
    strategy = make(composed("strategy=goldnas").strategy, space=toy())
    net = supernet(strategy.space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    floor = MacsFloor(**(dict(floor=0.12, stable=0.05) | settings))
    floor.setup(net, strategy)
    return floor, strategy, net


def switch_off(strategy: Strategy, group: str, edge: int, candidate: int) -> Architecture:
    alive = {name: table.clone() for name, table in strategy.alive.items()}
    alive[group][edge, candidate] = False
    strategy.prune(alive)
    return strategy.architecture()


def epoch(floor: MacsFloor, strategy: Strategy, net: Network, progress: float, **more: Any) -> list:
    floor.epoch_end(net, strategy, None, progress)
    return floor.keep(strategy.architecture(), last=more.get("last", False))


def test_a_plateau_is_kept_when_it_ends_as_it_was_before_the_cut():
    """stable=0.05 of 100 epochs: 5 epochs from one cut to the next, 4 of them without a cut."""
    floor, strategy, net = ready()
    first = strategy.architecture()
    for i in range(1, 5):
        assert epoch(floor, strategy, net, i / 100) == []
    switch_off(strategy, "00_normal", 0, 1)
    assert epoch(floor, strategy, net, 0.05) == [first]
    second = switch_off(strategy, "00_normal", 1, 1)  # the next epoch cuts again: no plateau
    assert epoch(floor, strategy, net, 0.06) == []
    for i in range(7, 10):
        assert epoch(floor, strategy, net, i / 100) == []
    switch_off(strategy, "01_reduce", 0, 1)
    assert epoch(floor, strategy, net, 0.10) == []  # stood for 4 epochs only
    for i in range(11, 16):
        assert epoch(floor, strategy, net, i / 100) == []
    third = strategy.architecture()
    last = switch_off(strategy, "01_reduce", 1, 1)
    assert epoch(floor, strategy, net, 0.16, last=True) == [third, last]
    assert second not in (first, third, last)


def test_the_last_is_kept_once_even_if_it_stood():
    floor, strategy, net = ready()
    for i in range(1, 10):
        epoch(floor, strategy, net, i / 10)
    assert epoch(floor, strategy, net, 1.0, last=True) == [strategy.architecture()]


def test_long_epochs_are_plateaus_each():
    floor, strategy, net = ready()
    first = strategy.architecture()
    switch_off(strategy, "00_normal", 0, 1)
    assert epoch(floor, strategy, net, 0.1) == [first]


def left(floor: MacsFloor, architecture: Architecture) -> float:
    """The share of all candidates' multiply-accumulates that an architecture keeps."""
    everything = sum(int(table.sum()) for table in floor.macs.values())
    return total(architecture, floor.space, floor.macs) / everything


def test_what_is_left_is_a_share_of_the_candidates_multiply_accumulates():
    floor, strategy, _ = ready()
    full = strategy.architecture()
    assert left(floor, full) == 1.0
    found = switch_off(strategy, "02_reduce", 1, 1)
    with torch.device("meta"):
        sizes = [macs(final_network(strategy.space, a)) for a in (full, found)]
    candidates = sum(int(table.sum()) for table in floor.macs.values())
    assert sizes[0] - sizes[1] == pytest.approx((1 - left(floor, found)) * candidates)


def test_the_search_stops_at_the_floor_and_not_before():
    floor, strategy, net = ready(floor=0.5)
    share = 1.0
    for group in strategy.alive:
        for edge in (0, 1):
            if share <= 0.5:
                continue
            share = left(floor, switch_off(strategy, group, edge, 1))
            assert floor.epoch_end(net, strategy, None, 0.1) is (share <= 0.5)
    assert share <= 0.5


@pytest.mark.slow
def test_a_floor_that_cannot_be_reached_is_refused_with_the_least_that_can():
    """One node a cell; in a reduction cell its cheapest input is a factorised reduction."""
    floor, _, _ = ready()
    candidates = sum(int(table.sum()) for table in floor.macs.values())
    least = sum(int(floor.macs[name][0, 0]) for name in ("01_reduce", "02_reduce")) / candidates
    assert 0 < least < 0.12
    ready(floor=least + 1e-6)
    with pytest.raises(ValueError, match=rf"^floor: .* set it to {least:.3f}"):
        ready(floor=least - 1e-6)
    for wrong in (dict(floor=1.0), dict(stable=-0.1)):
        with pytest.raises(ValueError, match=r"^\w+: expected a number of at least 0 and below 1"):
            MacsFloor(**(dict(floor=0.1, stable=0.1) | wrong))


def test_a_checkpoint_remembers_the_plateau():
    floor, strategy, net = ready()
    first = strategy.architecture()
    epoch(floor, strategy, net, 0.04)
    state = copy.deepcopy(floor.state_dict())
    other, _, _ = ready()
    other.load_state_dict(state)
    switch_off(strategy, "00_normal", 0, 1)
    assert epoch(other, strategy, net, 0.05) == [first]
    assert epoch(floor, strategy, net, 0.05) == [first]
    assert other.state_dict() == floor.state_dict()
