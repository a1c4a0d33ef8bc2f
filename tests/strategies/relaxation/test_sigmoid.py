"""Gates by themselves: the sheet goldnas.md, section 3."""

import math

import torch

from strategies.relaxation.sigmoid import Sigmoid


def test_each_gate_is_the_sigmoid_of_its_own_alpha():
    alphas = torch.tensor([[0.0, math.log(3)], [-math.log(4), 100.0]])
    gates, index = Sigmoid()(alphas, torch.ones(2, 2, dtype=torch.bool))
    assert index is None
    torch.testing.assert_close(gates, torch.tensor([[0.5, 0.75], [0.2, 1.0]]))


def test_a_pruned_candidate_has_gate_0_and_no_gradient():
    alphas = torch.zeros(2, 2, requires_grad=True)
    gates, _ = Sigmoid()(alphas, torch.tensor([[True, False], [False, False]]))
    assert torch.equal(gates, torch.tensor([[0.5, 0.0], [0.0, 0.0]]))
    gates.sum().backward()
    assert torch.equal(alphas.grad, torch.tensor([[0.25, 0.0], [0.0, 0.0]]))
