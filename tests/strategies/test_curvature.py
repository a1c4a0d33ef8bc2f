"""What selfdistill.md, section 8, test 10 measures: against a full Hessian, a Taylor expansion.

What came out of measuring is in docs/results_2026-11.md (benchmarks/selfdistill_claim.py).
"""

import pytest
import torch
import torch.nn.functional as F
from test_every_config import composed, make

from search_spaces.darts import darts
from strategies.curvature import alpha_eigenvalue, largest_eigenvalue, weight_sharpness
from strategies.gradients import Batch
from strategies.losses.snapshot import lent
from strategies.strategy import Strategy
from supernets.network import Network, supernet


@pytest.fixture
def parts() -> tuple[Network, Strategy, Batch]:
    torch.manual_seed(0)
    names = ["skip_connect", "sep_conv_3x3", "max_pool_3x3"]
    space = darts(layers=3, nodes=2, channels=4, candidates=names, input_shape=(3, 8, 8), classes=3)
    strategy = make(composed("strategy=pcdarts", "strategy.mixed_op.k=2").strategy, space=space)
    net = supernet(space, strategy.mixed_op).double()
    for tensors in (strategy.alphas, strategy.betas):
        for name, tensor in tensors.items():
            tensors[name] = torch.nn.Parameter(torch.randn_like(tensor).double())
    strategy.setup(net, torch.device("cpu"))
    x = torch.randn(4, *space.input_shape, dtype=torch.float64)
    return net, strategy, (x, torch.randint(space.classes, (4,)))


@pytest.mark.slow
def test_selfdistill_10_the_eigenvalue_is_that_of_the_full_hessian(
    parts: tuple[Network, Strategy, Batch],
):
    net, strategy, batch = parts
    arch = strategy.arch_parameters()
    with lent(net):
        loss = F.cross_entropy(net(batch[0], strategy.mixture(noise=False)), batch[1])
        gradients = torch.autograd.grad(loss, arch, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradients])
    rows = [torch.autograd.grad(g, arch, retain_graph=True, materialize_grads=True) for g in flat]
    hessian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    eigenvalues = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
    assert alpha_eigenvalue(net, strategy, batch) == pytest.approx(float(eigenvalues[-1]), rel=0.01)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[2.0, 1.0], [1.0, 2.0]], 3.0),  # 2 would say that the block between groups was lost
        ([[-5.0, 0.0], [0.0, 1.0]], 1.0),  # not the one of largest magnitude
        ([[-3.0, 0.0], [0.0, -2.0]], -2.0),
        ([[0.0, 0.0], [0.0, 0.0]], 0.0),
    ],
)
def test_robustdarts_1_the_largest_eigenvalue_of_both_groups_together(matrix, expected):
    """L = a' A a / 2, the first coordinate in one group, the second in another."""
    normal, reduce = (torch.tensor([x], requires_grad=True) for x in (0.3, -0.8))
    a = torch.cat([normal, reduce])
    loss = 0.5 * a @ torch.tensor(matrix) @ a
    gradients = torch.autograd.grad(loss, [normal, reduce], create_graph=True)
    assert largest_eigenvalue(gradients, [normal, reduce]) == pytest.approx(expected, abs=1e-5)


def test_robustdarts_2_of_a_loss_linear_in_a_softmax():
    """L = c . softmax(a), c = (0, 1): 0 and 2 p1 p2 (p1 - p2)."""
    a = torch.tensor([0.7, -0.2], requires_grad=True)
    gradients = torch.autograd.grad(a.softmax(0)[1], [a], create_graph=True)
    assert largest_eigenvalue(gradients, [a]) == pytest.approx(0.173401, abs=1e-6)


def test_a5_the_largest_of_many_eigenvalues_is_found_below_a_larger_negative_one():
    """-9, then 60 evenly from -1 to 1: far more than iterations."""
    values = torch.cat([torch.tensor([-9.0]), torch.linspace(-1, 1, 60)])
    a = torch.randn(61, requires_grad=True)
    gradients = torch.autograd.grad(0.5 * (values * a * a).sum(), [a], create_graph=True)
    assert largest_eigenvalue(gradients, [a]) == pytest.approx(1.0, abs=0.02)


def test_selfdistill_10_sharpness_at_a_small_radius_is_the_gradients_norm(
    parts: tuple[Network, Strategy, Batch],
):
    net, strategy, batch = parts
    weights = list(net.parameters())
    with lent(net):
        loss = F.cross_entropy(net(batch[0], strategy.mixture(noise=False)), batch[1])
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())
    found = weight_sharpness(net, strategy, batch, radius=1e-6)
    assert found == pytest.approx(1e-6 * norm, rel=1e-3)


def test_selfdistill_10_measuring_changes_nothing(parts: tuple[Network, Strategy, Batch]):
    net, strategy, batch = parts
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    alpha_eigenvalue(net, strategy, batch)
    weight_sharpness(net, strategy, batch)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
