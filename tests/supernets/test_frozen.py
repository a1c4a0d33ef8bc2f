"""Which passes of a search record the statistics of batch norms."""

import pytest
import torch
from test_every_config import composed, make, still
from torch import nn

from search_spaces.space import Space
from supernets import frozen
from supernets.network import supernet


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("name", ["darts", "goldnas", "rarts"])
def test_a_search_step_on_a_gpu_records_none(
    name: str, on_gpu: bool, toy_darts: Space, monkeypatch
):
    """First order, one level, two copies: the training on weights, whatever updates them."""
    monkeypatch.setattr(frozen, "launches", lambda device: on_gpu)
    strategy = make(composed(*still(name)).strategy, space=toy_darts)
    net = supernet(toy_darts, strategy.mixed_op).train()
    strategy.setup(net, torch.device("cpu"))
    strategy.epoch_start(0, 2)
    train, val = ((torch.randn(4, 3, 16, 16), torch.randint(10, (4,))) for _ in range(2))
    strategy.step(net, train, val, progress=0.5, move_alphas=True)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.track_running_stats for norm in norms)
    assert any(bool(norm.num_batches_tracked) for norm in norms) != on_gpu
