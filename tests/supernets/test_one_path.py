import torch
from torch import nn

from supernets.mixed_op import MixedOp
from supernets.one_path import OnePathOp


class Scale(nn.Module):
    """Multiplies by a known number, so that gradients can be worked out by hand."""

    def __init__(self, by: float):
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.by * x


def candidates() -> list:
    return [lambda *_, by=by, **__: Scale(by) for by in (2.0, 5.0, -1.0)]


def test_gdas_3_gates_that_did_not_run_add_nothing_but_their_gradient():
    """y = g1 5x + g0 + g2 for x = (1, 3), weighted (10, 1): dL/dg = (11, 5 (10 + 3), 11)."""
    gates = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    x, above = torch.tensor([1.0, 3.0]), torch.tensor([10.0, 1.0])
    y = OnePathOp(candidates(), 1, 1, 1)(x, gates, [1])
    assert y.tolist() == [5.0, 15.0]
    (y * above).sum().backward()
    assert gates.grad.tolist() == [11.0, 65.0, 11.0]


def test_gdas_3_logits_compare_the_op_with_one():
    """(<dL/dy, op(x)> - sum(dL/dy)) dp/da, p = (1/4, 1/2, 1/4): 54 / 2 * (-1/4, 1/2, -1/4)."""
    alphas = torch.tensor([0.0, 2.0, 0.0]).mul(0.5 * torch.tensor(2.0).log()).requires_grad_()
    p = alphas.softmax(0)
    torch.testing.assert_close(p.detach(), torch.tensor([0.25, 0.5, 0.25]))
    gates = torch.tensor([0.0, 1.0, 0.0]) + (p - p.detach())
    x, above = torch.tensor([1.0, 3.0]), torch.tensor([10.0, 1.0])
    (OnePathOp(candidates(), 1, 1, 1)(x, gates, [1]) * above).sum().backward()
    torch.testing.assert_close(alphas.grad, torch.tensor([-6.75, 13.5, -6.75]))


def test_more_than_one_path_or_none_is_a_mixed_op():
    gates, x = torch.tensor([0.2, 0.3, 0.5]), torch.randn(2, 4)
    ours, reference = OnePathOp(candidates(), 1, 1, 1), MixedOp(candidates(), 1, 1, 1)
    assert torch.equal(ours(x, gates, [0, 1, 2]), reference(x, gates, [0, 1, 2]))
    assert ours(x, gates, []) is None
    assert list(ours.state_dict()) == list(reference.state_dict())
