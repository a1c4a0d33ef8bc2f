"""A budget of seconds becomes epochs, and leaves the search as it was."""

import pytest
import torch
from test_every_config import composed, make

from engine.search.time_budget import epochs_within
from search_spaces.space import Space
from supernets.network import supernet


@pytest.mark.parametrize("name", [pytest.param("pcdarts", marks=pytest.mark.slow), "goldnas"])
def test_more_seconds_are_more_epochs_and_nothing_is_changed(name: str, toy_darts: Space):
    strategy = make(composed(f"strategy={name}").strategy, space=toy_darts)
    net = supernet(toy_darts, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    small = ["data=synthetic", "data.size=64", "data.classes=3"]
    channels, height, _ = toy_darts.input_shape
    data = make(composed(*small, f"data.image_size={height}").data)
    assert data.input_shape == toy_darts.input_shape, channels
    roles = data.loaders(8, one_level=not strategy.update.two_level, seed=0)
    state = torch.get_rng_state()
    before = [t.detach().clone() for t in (*net.parameters(), *strategy.arch_parameters())]
    alive = {group: table.clone() for group, table in strategy.alive.items()}

    assert epochs_within(1e-6, net, strategy, roles) == 1
    assert epochs_within(1e4, net, strategy, roles) > 50

    assert torch.equal(torch.get_rng_state(), state)
    after = (*net.parameters(), *strategy.arch_parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(torch.equal(alive[group], table) for group, table in strategy.alive.items())
    assert (roles.train.epoch, roles.train.batch) == (0, 0)
    assert strategy.weight_optimizer.state == {}
