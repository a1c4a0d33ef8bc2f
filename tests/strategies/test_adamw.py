"""AdamW by the settings of SGD."""

import pytest
import torch
from test_every_config import composed, make
from torch import nn

from strategies.adamw import adamw
from supernets.network import supernet


def made(**changes) -> torch.optim.Optimizer:
    given = dict(lr=0.1, momentum=0.8, beta=0.9, weight_decay=0.5, nesterov=False, foreach=False)
    return adamw([nn.Parameter(torch.ones(2))], **given | changes)


def test_the_first_step_by_hand():
    """m / (1 - 0.8) = g and v / (1 - 0.9) = g^2, so a step is lr * sign(g), behind the decay."""
    optimizer = made()
    ((value,),) = (group["params"] for group in optimizer.param_groups)
    value.grad = torch.tensor([4.0, -0.01])
    optimizer.step()
    torch.testing.assert_close(value, torch.tensor([0.95 - 0.1, 0.95 + 0.1]), rtol=0, atol=1e-5)


def test_with_nesterov_it_is_nadam():
    assert isinstance(made(nesterov=True), torch.optim.NAdam)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="lr: expected a number above 0"):
        made(lr=0.0)


@pytest.mark.parametrize("name", ["darts", "gdas", "tas"])
def test_it_takes_the_place_of_sgd_in_any_strategy(name: str, toy_darts):
    config = composed(f"strategy={name}", "strategy/weight_optimizer=adamw")
    strategy = make(config.strategy, space=toy_darts)
    strategy.setup(supernet(toy_darts, strategy.mixed_op), torch.device("cpu"))
    assert strategy.weight_optimizer.param_groups[0]["betas"] == (0.9, 0.99)
