import math

import pytest
import torch

from strategies.relaxation.softmax import Softmax


def test_temperature_two_of_a_pruned_row():
    alphas, alive = torch.tensor([[0.0, 2.0, 9.0]]), torch.tensor([[True, True, False]])
    gates, index = Softmax(start=2.0, end=2.0)(alphas, alive)
    small = 1 / (1 + math.e)
    torch.testing.assert_close(gates, torch.tensor([[small, 1 - small, 0.0]]))
    assert index is None


def test_temperature_falls_geometrically():
    softmax = Softmax(start=4.0, end=1.0)
    found = []
    for progress in (0.0, 0.5, 1.0):
        softmax.before_step(progress)
        found.append(float(softmax.temperature))
    assert found == [4.0, 2.0, 1.0]


def test_dead_edge_has_zero_gates_and_zero_gradient():
    alphas = torch.zeros(2, 3, requires_grad=True)
    alive = torch.tensor([[False] * 3, [True] * 3])
    gates, _ = Softmax(1.0, 1.0)(alphas, alive)
    (gates * torch.arange(6.0).view(2, 3)).sum().backward()
    assert gates[0].tolist() == [0.0, 0.0, 0.0]
    assert alphas.grad[0].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(alphas.grad[1], torch.tensor([-1 / 3, 0.0, 1 / 3]))


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match=r"^start: expected a number above 0, found 0\.0"):
        Softmax(start=0.0, end=1.0)
