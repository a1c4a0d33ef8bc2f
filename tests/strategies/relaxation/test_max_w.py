"""Max-W, the sheet sharpdarts.md, section 3 and test 3."""

import math

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor

from search_spaces.space import Space
from strategies.relaxation.max_w import MaxW
from strategies.relaxation.softmax import Softmax


def gates_of(alphas: Tensor, *, detach: bool = False) -> Tensor:
    return MaxW(detach)(alphas, torch.ones_like(alphas, dtype=torch.bool))[0]


def test_sharpdarts_3_the_strongest_gate_is_exactly_one():
    alphas = 3 * torch.randn(50, 7)
    gates = gates_of(alphas)
    assert torch.equal(gates.gather(1, alphas.argmax(1, keepdim=True)), torch.ones(50, 1))
    assert (gates > 0).all()
    assert (gates <= 1).all()


def test_sharpdarts_3_of_two_the_weaker_has_one_minus_the_difference():
    first = 1 / (1 + math.exp(-0.7))  # softmax(0.7, 0)
    expected = torch.tensor([[1.0, 1 - (first - (1 - first))]])
    torch.testing.assert_close(gates_of(torch.tensor([[0.7, 0.0]])), expected)


def test_sharpdarts_3_equal_logits_give_gates_of_one():
    assert torch.equal(gates_of(torch.zeros(1, 3)), torch.ones(1, 3))


@pytest.mark.parametrize(("detach", "moves"), [(False, False), (True, True)])
def test_sharpdarts_3_gradient_of_the_strongest_gate(detach: bool, moves: bool):
    """1 - w_max.detach() + w has the softmax's gradient w (1 - w); undetached it is exactly 0."""
    alphas = torch.tensor([[0.5, -1.0, 0.2]], requires_grad=True)
    (gradient,) = torch.autograd.grad(gates_of(alphas, detach=detach)[0, 0], alphas)
    w = alphas.detach().softmax(1)
    expected = w * (torch.tensor([[1.0, 0.0, 0.0]]) - w[:, :1]) * moves
    torch.testing.assert_close(gradient, expected)
    assert moves or not gradient.any()


def test_sharpdarts_3_a_permutation_permutes_the_gates():
    alphas, order = torch.randn(4, 6), torch.randperm(6)
    torch.testing.assert_close(gates_of(alphas[:, order]), gates_of(alphas)[:, order])


def test_a_pruned_candidate_and_a_dead_edge_have_gates_of_zero():
    alphas = torch.tensor([[0.0, 2.0, 1.0], [0.3, 0.1, 0.2]], requires_grad=True)
    alive = torch.tensor([[True, False, True], [False, False, False]])
    gates, index = MaxW(False)(alphas, alive)
    assert index is None
    first = 1 / (1 + math.exp(-1.0))
    expected = torch.tensor([[2 - 2 * first, 0.0, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(gates, expected)
    (gradient,) = torch.autograd.grad(gates.sum(), alphas)
    assert gradient.isfinite().all()


def test_edges_are_compared_by_the_softmax(toy_darts: Space):
    """The strongest gate is 1 on every edge, so the gates could not tell which edges to keep."""
    strategy = make(composed("strategy=sharpdarts").strategy, space=toy_darts)
    for alphas in strategy.alphas.values():
        alphas.data.zero_()
        alphas.data[:, 4] = torch.tensor([0.1, 0.2, 0.5, 0.3, 0.4])
    assert set(strategy.architecture().choices["normal"]) == {"0-2", "1-2", "0-3", "2-3"}
    plain = Softmax(1.0, 1.0)(strategy.alphas["normal"], strategy.alive["normal"])[0]
    torch.testing.assert_close(strategy.gates()["normal"], plain.detach())
