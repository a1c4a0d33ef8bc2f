"""The sheet others.md, SNAS, its facts numbered in their order."""

import math

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor

from search_spaces.space import Space
from strategies.relaxation.concrete import Concrete, gumbel_like
from supernets.network import supernet


def at(temperature: float) -> Concrete:
    return Concrete(temperature, temperature)


def all_alive(alphas: Tensor) -> Tensor:
    return torch.ones_like(alphas, dtype=torch.bool)


def test_snas_1_gates_are_the_softmax_of_noisy_logits_over_temperature():
    alphas = torch.randn(6, 5)
    torch.manual_seed(3)
    gates, index = at(0.5)(alphas, all_alive(alphas))
    torch.manual_seed(3)
    log_a = alphas.log_softmax(1)  # the paper's normalised a; the constant cancels
    torch.testing.assert_close(gates, ((log_a + gumbel_like(alphas)) / 0.5).softmax(1))
    assert index is None


def test_snas_1_mean_of_two_candidates_at_temperature_one():
    """Odds r = 2: E[Z] = r / (r - 1) - r ln r / (r - 1)^2 = 2 - 2 ln 2 = 0.613706, not 2/3."""
    n = 200_000
    rows = torch.tensor([math.log(2), 0.0]).expand(n, 2)
    gates, _ = at(1.0)(rows, all_alive(rows))
    error = gates[:, 0].std().item() / n**0.5
    assert gates[:, 0].mean().item() == pytest.approx(2 - 2 * math.log(2), abs=4 * error)


def test_snas_1_gradient_of_that_mean_goes_through_the_draws():
    """dE[Z]/d ln r at r = 1, where Z is uniform: E[Z (1 - Z)] = 1/6."""
    n = 200_000
    rows = torch.zeros(n, 2, requires_grad=True)
    gates, _ = at(1.0)(rows, all_alive(rows))
    (gradient,) = torch.autograd.grad(gates[:, 0].sum(), rows)
    error = gradient[:, 0].std().item() / n**0.5
    assert gradient[:, 0].mean().item() == pytest.approx(1 / 6, abs=4 * error)


@pytest.mark.parametrize("temperature", [1.0, 0.03])
def test_snas_1_largest_gate_follows_the_softmax_at_any_temperature(temperature: float):
    """And at 0.03 the largest gate is nearly all: what is executed is nearly a sample."""
    n, p = 100_000, torch.tensor([0.1, 0.2, 0.3, 0.4])
    rows = p.log().expand(n, 4)
    gates, _ = at(temperature)(rows, all_alive(rows))
    found = gates.argmax(1).bincount(minlength=4) / n
    assert ((found - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()
    assert (gates.amax(1).median() > 0.999) == (temperature == 0.03)


def test_snas_2_temperature_falls_linearly_from_1_to_003():
    concrete, found = make(composed("strategy=snas").strategy.relaxation), []
    for progress in (0.0, 0.5, 1.0):
        concrete.before_step(progress)
        found.append(float(concrete.temperature))
    assert found == pytest.approx([1.0, 0.515, 0.03])


def test_snas_3_weights_and_alphas_descend_together_on_the_training_loss(toy_darts: Space):
    """One step of each optimiser from the gradients of one and the same loss; no val batch."""
    strategy = make(composed("strategy=snas", "strategy.clip=null").strategy, space=toy_darts)
    net = supernet(toy_darts, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    batch = torch.randn(4, 3, 16, 16), torch.randint(10, (4,))
    before = [p.detach().clone() for p in (*strategy.arch_parameters(), *strategy.weights)]
    torch.manual_seed(5)
    loss, _ = strategy.loss(net, batch)
    gradients = torch.autograd.grad(
        loss, [*strategy.arch_parameters(), *strategy.weights], materialize_grads=True
    )
    torch.manual_seed(5)  # the same draw of gates
    metrics = strategy.step(net, batch, None, progress=0.0, move_alphas=True)
    assert metrics["train_loss"] == loss
    assert not strategy.update.two_level
    groups = len(strategy.arch_parameters())
    after = [*strategy.arch_parameters(), *strategy.weights]
    for p, old, g in list(zip(after, before, gradients, strict=True))[:groups]:
        step = g + 1e-3 * old
        large = step.abs() > 1e-6  # Adam's first step is lr sign(g)
        torch.testing.assert_close((p - old)[large], -3e-4 * step.sign()[large], rtol=0.02, atol=0)
        assert large.any()
    for p, old, g in list(zip(after, before, gradients, strict=True))[groups:]:
        torch.testing.assert_close(p.detach(), old - 0.025 * (g + 3e-4 * old))


def test_snas_3_alphas_stand_still_in_a_warmup(toy_darts: Space):
    strategy = make(composed("strategy=snas").strategy, space=toy_darts)
    net = supernet(toy_darts, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    before = [p.detach().clone() for p in strategy.arch_parameters()]
    batch = torch.randn(4, 3, 16, 16), torch.randint(10, (4,))
    strategy.step(net, batch, None, progress=0.0, move_alphas=False)
    assert all(map(torch.equal, before, strategy.arch_parameters()))
    assert not strategy.alpha_optimizer.state


def test_snas_4_every_edge_is_kept_unless_it_chooses_none(toy_darts: Space):
    strategy = make(composed("strategy=snas").strategy, space=toy_darts)
    candidates = toy_darts.groups["normal"].edges[0].names
    best = ["sep_conv_3x3", "none", "skip_connect", "dil_conv_5x5", "none"]
    with torch.no_grad():
        for alphas in strategy.alphas.values():
            for e, name in enumerate(best):
                alphas[e, candidates.index(name)] = 1.0
    choices = strategy.architecture().choices["normal"]
    assert choices == {  # node 3 has two inputs of three, node 2 one of two
        "0-2": ("sep_conv_3x3",),
        "0-3": ("skip_connect",),
        "1-3": ("dil_conv_5x5",),
    }


def test_snas_5_numbers_of_the_sheet_and_the_public_code():
    config = composed("strategy=snas", "experiment=paper").strategy
    sgd, adam = config.weight_optimizer, config.alpha_optimizer
    assert (sgd.lr, config.min_lr, sgd.momentum, sgd.weight_decay) == (0.025, 0.001, 0.9, 3e-4)
    assert (adam.lr, list(adam.betas), adam.weight_decay) == (3e-4, [0.5, 0.999], 1e-3)
    assert (config.alpha_init, config.warmup, config.losses) == (0.01, 0, {})


def test_without_noise_gates_are_the_chances_of_the_candidates():
    alphas = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    for gates, _ in (
        at(0.1).expected(alphas, all_alive(alphas)),
        at(0.1).eval()(alphas, all_alive(alphas)),
    ):
        torch.testing.assert_close(gates, torch.tensor([[0.1, 0.2, 0.3, 0.4]]))


def test_pruned_and_dead_get_zero_gates_and_zero_gradients():
    alphas = torch.randn(500, 4, requires_grad=True)
    alive = torch.rand(500, 4) < 0.5
    alive[0] = False
    gates, _ = at(0.03)(alphas, alive)
    (gates * torch.randn(500, 4)).sum().backward()
    assert gates[~alive].eq(0).all()
    torch.testing.assert_close(gates.sum(1), alive.any(1).float())
    assert alphas.grad is not None
    assert alphas.grad[~alive].eq(0).all()
    assert alphas.grad.isfinite().all()
