"""The sheet others.md, GDAS, its facts numbered in their order; 3 also in test_one_path.py."""

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor

from search_spaces.space import Space
from strategies.relaxation import concrete
from strategies.relaxation.concrete import gumbel_like
from strategies.relaxation.gumbel import Gumbel
from supernets.network import supernet


def at(temperature: float) -> Gumbel:
    return Gumbel(temperature, temperature)


def all_alive(alphas: Tensor) -> Tensor:
    return torch.ones_like(alphas, dtype=torch.bool)


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1])
def test_gdas_1_one_hot_forward_and_the_softmax_gradient(temperature: float):
    """p = softmax((log softmax(a) + g) / tau), h = one-hot(argmax p), w = h - p.detach() + p."""
    alphas, above = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5)
    torch.manual_seed(3)
    gates, index = at(temperature)(alphas, all_alive(alphas))
    torch.manual_seed(3)
    p = ((alphas.log_softmax(1) + gumbel_like(alphas)) / temperature).softmax(1)
    assert index is not None
    assert index.tolist() == p.argmax(1).tolist()
    assert torch.equal(gates, torch.eye(5)[p.argmax(1)])  # exactly 0 and 1
    (ours,) = torch.autograd.grad((gates * above).sum(), alphas)
    (theirs,) = torch.autograd.grad((p * above).sum(), alphas)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [10.0, 0.1])
def test_gdas_2_candidates_are_drawn_by_the_softmax_at_any_temperature(temperature: float):
    """a = ln(1, 2, 3, 4) is drawn with probabilities 0.1, 0.2, 0.3, 0.4; 4 standard errors."""
    n, alphas = 100_000, torch.tensor([1.0, 2.0, 3.0, 4.0]).log()
    rows = alphas.expand(n, 4)
    _, index = at(temperature)(rows, all_alive(rows))
    assert index is not None
    found = index.bincount(minlength=4) / n
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert ((found - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()


def test_gdas_3_one_candidate_an_edge_runs_and_every_logit_learns(toy_darts: Space):
    strategy, ran = make(composed("strategy=gdas").strategy, space=toy_darts), []
    net = supernet(toy_darts, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    for layer in net.layers:
        for name, edge in layer.edges.items():
            for o, op in enumerate(edge.ops):
                op.register_forward_hook(
                    lambda *_, where=(layer, name, o): ran.append(where)  # type: ignore[misc]
                )
    loss, _ = strategy.loss(net, (torch.randn(4, 3, 16, 16), torch.randint(10, (4,))))
    edges = [(layer, name) for layer in net.layers for name in layer.edges]
    assert sorted(map(str, (where[:2] for where in ran))) == sorted(map(str, edges))
    loss.backward(inputs=strategy.arch_parameters())
    for alphas in strategy.arch_parameters():
        assert alphas.grad is not None
        assert (alphas.grad != 0).all()


def test_gdas_4_temperature_falls_linearly_from_10_to_a_tenth():
    gumbel, found = make(composed("strategy=gdas").strategy.relaxation), []
    for progress in (0.0, 0.5, 1.0):
        gumbel.before_step(progress)
        found.append(float(gumbel.temperature))
    assert found == pytest.approx([10.0, 5.05, 0.1])


def test_gdas_5_numbers_of_the_sheet():
    config = composed("strategy=gdas", "experiment=paper").strategy
    sgd, adam = config.weight_optimizer, config.alpha_optimizer
    assert (sgd.lr, config.min_lr, sgd.momentum, sgd.nesterov) == (0.025, 0.001, 0.9, True)
    assert sgd.weight_decay == 5e-4
    assert (adam.lr, list(adam.betas), adam.weight_decay) == (3e-4, [0.5, 0.999], 1e-3)
    assert config.warmup == 0


def test_gdas_6_noise_is_finite_whatever_is_drawn(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "exponential_", torch.Tensor.zero_)
    noise = concrete.gumbel_like(torch.zeros(3))
    torch.testing.assert_close(noise, torch.full((3,), 87.3365))
    alphas = torch.tensor([[0.0, 1.0, 2.0]])
    gates, index = at(0.1)(alphas, all_alive(alphas))
    assert gates.tolist() == [[0.0, 0.0, 1.0]]
    assert index is not None


def test_gdas_7_architecture_is_read_from_softmax_of_alphas():
    """Their temperature is 1 whatever tau is; it is also the mean of the drawn gates."""
    alphas = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    expected = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    gates, index = at(0.1).expected(alphas, all_alive(alphas))
    assert index is None
    torch.testing.assert_close(gates, expected)


def test_b3_gdas_is_measured_on_the_path_of_its_largest_alphas(toy_darts: Space):
    """One candidate an edge runs, as in training; gates have the gradient of softmax(alphas)."""
    alphas = torch.tensor([[1.0, 2.0, 4.0, 3.0]]).log().requires_grad_()
    gates, index = at(0.1).eval()(alphas, all_alive(alphas))
    assert gates.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert index.tolist() == [2]
    (gradient,) = torch.autograd.grad(gates[0, 2], alphas)
    torch.testing.assert_close(gradient, torch.tensor([[-0.04, -0.08, 0.24, -0.12]]))

    strategy = make(composed("strategy=gdas").strategy, space=toy_darts)
    strategy.alphas["normal"].data[0, 3] = 1.0
    group = strategy.mixture(noise=False).groups["normal"]
    assert group.active[0] == [3]
    assert all(len(row) == 1 for row in group.active)
    assert set(group.gates.flatten().tolist()) == {0.0, 1.0}


def test_pruned_and_dead_get_zero_gates_and_zero_gradients():
    alphas = torch.randn(500, 4, requires_grad=True)
    alive = torch.rand(500, 4) < 0.5
    alive[0] = False
    gates, index = at(0.1)(alphas, alive)
    (gates * torch.randn(500, 4)).sum().backward()
    assert gates[~alive].eq(0).all()
    assert gates.sum(1).tolist() == alive.any(1).float().tolist()
    assert index is not None
    some = alive.any(1)
    assert alive[some].gather(1, index[some, None]).all()  # what runs is alive
    assert alphas.grad is not None
    assert alphas.grad[~alive].eq(0).all()
    assert alphas.grad.isfinite().all()


def test_draws_are_fresh_and_follow_the_seed():
    alphas = torch.zeros(50, 8)
    torch.manual_seed(1)
    first, second = (at(1.0)(alphas, all_alive(alphas))[1] for _ in range(2))
    torch.manual_seed(1)
    again = at(1.0)(alphas, all_alive(alphas))[1]
    assert first is not None
    assert second is not None
    assert again is not None
    assert first.tolist() == again.tolist()
    assert first.tolist() != second.tolist()
