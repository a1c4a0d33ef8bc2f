"""The sheet others.md, DrNAS, its facts numbered in their order (5 and 6 are the anchor's)."""

import math

import pytest
import torch
from test_every_config import composed
from torch import Tensor

from strategies.relaxation.dirichlet import Dirichlet, concentrations

EXAMPLE = torch.tensor([[0.0, 1.0, -1.0]])


def all_alive(alphas: Tensor) -> Tensor:
    return torch.ones_like(alphas, dtype=torch.bool)


def test_drnas_1_concentrations_and_mean_of_the_sheet():
    torch.testing.assert_close(concentrations(EXAMPLE), torch.tensor([[1.0, 2.0, math.exp(-1)]]))
    gates, index = Dirichlet().expected(EXAMPLE, all_alive(EXAMPLE))
    expected = torch.tensor([[0.2969, 0.5938, 0.1092]])
    torch.testing.assert_close(gates, expected, rtol=0, atol=5e-5)
    assert index is None


def test_drnas_2_draws_start_uniform_on_the_simplex():
    """Dirichlet(1, 1, 1): a gate has mean 1/3, variance 1/18, and is below 1/2 in 3/4 of draws."""
    n = 100_000
    alphas = torch.zeros(n, 3)
    gates, index = Dirichlet()(alphas, all_alive(alphas))
    assert index is None
    torch.testing.assert_close(gates.sum(1), torch.ones(n))
    error = (1 / 18 / n) ** 0.5
    assert gates.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=4 * error)
    assert gates.var(0).tolist() == pytest.approx([1 / 18] * 3, rel=0.02)
    assert (gates < 0.5).double().mean(0).tolist() == pytest.approx([0.75] * 3, abs=0.006)


def test_drnas_2_draws_of_the_sheets_example():
    """Mean m = c / s and variance m (1 - m) / (s + 1), s = 3.367879."""
    n = 100_000
    rows = EXAMPLE.expand(n, 3)
    gates, _ = Dirichlet()(rows, all_alive(rows))
    mean, _ = Dirichlet().expected(EXAMPLE, all_alive(EXAMPLE))
    variance = mean[0] * (1 - mean[0]) / 4.367879
    assert ((gates.mean(0) - mean[0]).abs() < 4 * (variance / n).sqrt()).all()
    torch.testing.assert_close(gates.var(0), variance, rtol=0.02, atol=0.0)


def test_drnas_3_gradient_goes_through_the_draw():
    """d E[theta_1^2] / d alphas, theta_1^2 having mean c_1 (c_1 + 1) / (s (s + 1)) = 6 / 14.711."""
    n = 200_000
    rows = EXAMPLE.repeat(n, 1).requires_grad_()
    gates, _ = Dirichlet()(rows, all_alive(rows))
    (found,) = torch.autograd.grad(gates[:, 1].square().sum(), rows)
    c = torch.tensor([1.0, 2.0, math.exp(-1)])
    s = c.sum()
    moment = c[1] * (c[1] + 1) / (s * (s + 1))
    by_c = -moment * (1 / s + 1 / (s + 1)) * torch.ones(3)
    by_c[1] += (2 * c[1] + 1) / (s * (s + 1))
    expected = by_c * torch.tensor([1.0, 1.0, math.exp(-1)])  # dc/da = 1 where a >= 0, else e^a
    assert ((found.mean(0) - expected).abs() < 4 * found.std(0) / n**0.5).all()
    assert (found.std(0) > 0).all()


def test_drnas_4_best_candidate_is_that_of_the_largest_concentration():
    alphas = torch.randn(50, 8)
    gates, _ = Dirichlet().expected(alphas, all_alive(alphas))
    assert torch.equal(gates.argmax(1), alphas.argmax(1))
    again, _ = Dirichlet().eval()(alphas, all_alive(alphas))
    assert torch.equal(gates, again)


def test_drnas_7_numbers_of_the_sheet():
    config = composed("strategy=drnas", "experiment=paper").strategy
    sgd, adam = config.weight_optimizer, config.alpha_optimizer
    assert (sgd.lr, config.min_lr, sgd.momentum, sgd.weight_decay) == (0.025, 0.001, 0.9, 3e-4)
    assert (adam.lr, list(adam.betas), adam.weight_decay) == (3e-4, [0.5, 0.999], 0.0)
    anchor = config.losses.dirichlet_anchor
    assert (anchor.weight, anchor.distance) == (1e-3, "l2")
    assert config.alpha_init == 1e-3


def test_others_of_a_pruned_row_follow_their_own_dirichlet():
    """Without the candidate of c = 2: Beta(1, 1/e), mean 0.731059, variance m (1 - m) / (s + 1)."""
    n = 100_000
    rows = EXAMPLE.expand(n, 3)
    alive = torch.tensor([[True, False, True]]).expand(n, 3)
    gates, _ = Dirichlet()(rows, alive)
    m = 1 / (1 + math.exp(-1))
    variance = m * (1 - m) / (2 + math.exp(-1))
    assert gates[:, 1].eq(0).all()
    assert gates[:, 0].mean().item() == pytest.approx(m, abs=4 * (variance / n) ** 0.5)
    assert gates[:, 0].var().item() == pytest.approx(variance, rel=0.02)
    mean, _ = Dirichlet().expected(EXAMPLE, alive[:1])
    torch.testing.assert_close(mean, torch.tensor([[m, 0.0, 1 - m]]))


@pytest.mark.parametrize("shift", [0.0, -16.5])
def test_pruned_and_dead_get_zero_gates_and_zero_gradients(shift: float):
    alphas = (torch.randn(500, 4) + shift).requires_grad_()
    alive = torch.rand(500, 4) < 0.5
    alive[0] = False
    gates, _ = Dirichlet()(alphas, alive)
    (gates * torch.randn(500, 4)).sum().backward()
    assert gates[~alive].eq(0).all()
    torch.testing.assert_close(gates.sum(1), alive.any(1).float())
    assert alphas.grad is not None
    assert alphas.grad[~alive].eq(0).all()
    assert alphas.grad.isfinite().all()


def test_draws_are_fresh_and_follow_the_seed():
    alphas = torch.zeros(5, 8)
    torch.manual_seed(1)
    first, second = (Dirichlet()(alphas, all_alive(alphas))[0] for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(first, Dirichlet()(alphas, all_alive(alphas))[0])
    assert not torch.equal(first, second)


def test_entangled_23_small_concentrations_do_not_underflow_to_equal_gates():
    """Of draws at 0.001 some 12% are equal gates."""
    alphas = torch.full((5000, 3), -10.0)
    gates, _ = Dirichlet()(alphas, torch.ones_like(alphas, dtype=torch.bool))
    torch.testing.assert_close(gates.sum(1), torch.ones(5000))
    assert (gates.max(1).values > gates.min(1).values).all()
    assert gates.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
