"""Sheet others.md, Beta-DARTS."""

import math
from typing import Any

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor

from search_spaces.space import Space
from strategies.losses.beta_decay import BetaDecay, sums
from strategies.strategy import Strategy
from supernets.network import supernet


def ready(space: Space, *overrides: str) -> Strategy:
    strategy = make(composed("strategy=beta_darts", *overrides).strategy, space=space)
    strategy.setup(supernet(space, strategy.mixed_op), torch.device("cpu"))
    return strategy


def term(strategy: Strategy) -> Tensor:
    (loss,) = strategy.losses.values()
    nothing: Any = None
    return loss(nothing, nothing, nothing, nothing)


def test_beta_darts_value_and_gradient_of_a_row():
    alphas = torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    found = sums(alphas, torch.ones(1, 3, dtype=torch.bool))
    assert found.item() == pytest.approx(2.46437, abs=1e-5)
    found.sum().backward()
    torch.testing.assert_close(
        alphas.grad, torch.tensor([[0.23122, 0.62853, 0.14024]]), rtol=0, atol=1e-5
    )


def test_candidates_that_are_not_alive_and_dead_rows_count_for_nothing():
    alphas = torch.tensor([[0.0, 5.0], [3.0, 3.0]], requires_grad=True)
    found = sums(alphas, torch.tensor([[True, False], [False, False]]))
    assert found.tolist() == [0.0, 0.0]  # log exp(0), and nothing
    found.sum().backward()
    assert alphas.grad.tolist() == [[1.0, 0.0], [0.0, 0.0]]


@pytest.mark.slow
def test_lambda_rises_with_the_epochs_and_the_term_is_the_sum_over_rows(toy_darts: Space):
    strategy = ready(toy_darts, "strategy.alpha_init=0", "strategy.losses.beta_decay.weight=8")
    rows = sum(len(choice.rows) for choice in toy_darts.choices.values())
    row = math.log(toy_darts.choices["normal"].width)  # of equal alphas
    for epoch, strength in ((0, 0.0), (1, 2.0), (3, 6.0)):
        strategy.epoch_start(epoch, 4)
        assert term(strategy).item() == pytest.approx(strength * row * rows)


def test_it_is_a_loss_of_the_alphas_alone():
    assert BetaDecay.roles == ("val",)
    with pytest.raises(ValueError, match="weight: expected a number of at least 0, found -1"):
        BetaDecay(-1)
