"""What a search records of its costs. The loss itself: tests/strategies/test_tas.py."""

import pytest
import torch
from test_every_config import composed, make

from search_spaces.architecture import Architecture
from search_spaces.resnets import tas
from supernets.costs import expected_macs, macs
from supernets.network import final_network, supernet


def test_the_costs_of_a_search_are_those_of_its_gates_and_of_its_best_options():
    space = tas(depth=8, channels=8, widths=[0.5, 1], input_shape=(1, 8, 8), classes=2)
    given = ["strategy=tas", "strategy.losses.macs_band.target=0.5"]
    strategy = make(composed(*given).strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    for alphas in strategy.alphas.values():
        alphas.data[::2, 0] = 1.0  # the smaller width in every other row
    found = strategy.architecture()
    costs = strategy.costs_of(found)
    gates = {name: alphas.softmax(1) for name, alphas in strategy.alphas.items()}
    full = macs(final_network(space, Architecture.of(space, space.unpruned)))
    assert costs["expected_macs"] == pytest.approx(expected_macs(net, gates).item())
    assert costs["most_probable_macs"] == macs(final_network(space, found))
    assert costs["target_macs"] == full / 2
