"""The unrolled gradient against closed forms (DARTS sheet, tests 1 to 5)."""

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_spaces.ops import Noise
from strategies.update import second_order
from strategies.update.second_order import SecondOrder, unrolled_gradient

HESSIANS = ["exact", "finite_difference"]


def sgd(*weights: Tensor, lr: float, **settings: Any) -> torch.optim.SGD:
    return torch.optim.SGD([w.requires_grad_() for w in weights], lr=lr, **settings)


def toy(hessian: str, xi: float, second_order: bool = True) -> tuple[float, float]:
    """The paper's toy: L_val = a w - 2a + 1, L_train = (w - a)^2, from (2, -2)."""
    a = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([-2.0], dtype=torch.float64)
    optimizer = sgd(w, lr=xi)

    def train(ws: list[Tensor]) -> Tensor:
        return (ws[0] ** 2 - 2 * a * ws[0] + a**2).sum()

    def val(ws: list[Tensor]) -> Tensor:
        return (a * ws[0] - 2 * a + 1).sum()

    for _ in range(250):
        _, (gradient,) = unrolled_gradient(
            train,
            val,
            [a],
            optimizer if second_order else sgd(w, lr=0.0),
            hessian=hessian,
            radius=0.01,
        )
        with torch.no_grad():
            a.sub_(0.1 * gradient)
            w.sub_(0.2 * (2 * w - 2 * a))
    return a.item(), w.item()


@pytest.mark.parametrize(
    "hessian", ["exact", pytest.param("finite_difference", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("xi", "end"), [(0.3, 1.25), (0.5, 1.0), (0.7, 2 / 2.4)])
def test_toy_ends_at_its_known_point(hessian: str, xi: float, end: float):
    assert toy(hessian, xi) == pytest.approx((end, end), abs=1e-5)


def test_toy_first_order_ends_at_the_known_wrong_point():
    assert toy("exact", 0.5, second_order=False) == pytest.approx((2.0, 2.0), abs=1e-5)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_quadratic_with_momentum_decay_and_nesterov(hessian: str):
    torch.manual_seed(3)
    A, b, r = torch.randn(4, 3).double(), torch.randn(4).double(), 0.3
    a = torch.randn(3).double().requires_grad_()
    for nesterov in (False, True):
        w = torch.randn(4).double()
        optimizer = sgd(w, lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=nesterov)
        buffer = torch.randn(4).double()
        optimizer.state[w]["momentum_buffer"] = buffer.clone()
        before = w.detach().clone()

        _, (gradient,) = unrolled_gradient(
            lambda ws: 0.5 * ((ws[0] - A @ a) ** 2).sum(),
            lambda ws: 0.5 * ((ws[0] - b) ** 2).sum() + r / 2 * (a**2).sum(),
            [a],
            optimizer,
            hessian=hessian,
            radius=0.01,
        )

        assert torch.equal(w, before)
        assert torch.equal(optimizer.state[w]["momentum_buffer"], buffer)
        w.grad = (w - A @ a).detach()
        optimizer.step()  # the virtual step is the real one
        xi = 0.1 * (1.9 if nesterov else 1.0)
        expected = xi * A.T @ (w - b) + r * a
        torch.testing.assert_close(gradient, expected.detach(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_zero_learning_rate_is_first_order_exactly(hessian: str):
    a = torch.randn(3).double().requires_grad_()
    w = torch.randn(3).double()

    def val(ws: list[Tensor]) -> Tensor:
        return (torch.sin(a) * ws[0] ** 2).sum()

    _, (gradient,) = unrolled_gradient(
        lambda ws: (a * ws[0]).pow(2).sum(), val, [a], sgd(w, lr=0.0), hessian=hessian, radius=0.01
    )
    (first,) = torch.autograd.grad(val([w]), [a])
    assert torch.equal(gradient, first)


@pytest.mark.parametrize("scale", [1.0, 0.25])  # of v; a short one makes no step shorter
def test_d1_a_finite_difference_on_a_cubic_by_hand(scale: float):
    """L_train = a (w1^3 + w2^3), L_val = v w, |v| = 2 and radius 0.5: steps of eps = 1/4 along v.

    The difference of a cubic is 3 w^2 v + eps^2 v^3 in each weight: 22.8 + 5.824/16 in all; another
    step size, or a one-sided difference, gives another number.
    """
    a = torch.ones(1, dtype=torch.float64, requires_grad=True)
    w, v = torch.tensor([1.0, 2.0]).double(), scale * torch.tensor([1.2, 1.6]).double()
    found = {}
    for hessian in HESSIANS:
        loss, (gradient,) = unrolled_gradient(
            lambda ws: (a * ws[0] ** 3).sum(),
            lambda ws: (v * ws[0]).sum(),
            [a],
            sgd(w, lr=0.1),
            hessian=hessian,
            radius=0.5 * scale,
        )
        ahead = 1.2 * (1 - 0.1 * 3) + 1.6 * (2 - 0.1 * 12)
        assert loss.item() == pytest.approx(scale * ahead)
        found[hessian] = gradient.item() / scale
    assert found["exact"] == pytest.approx(-0.1 * 22.8)
    assert found["finite_difference"] == pytest.approx(-0.1 * (22.8 + 5.824 * scale**2 / 16))


@pytest.mark.parametrize("hessian", HESSIANS)
def test_an_alpha_of_which_the_training_gradient_is_independent_has_the_direct_term_alone(
    hessian: str,
):
    a, b = (torch.ones(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    w = torch.tensor([3.0]).double()
    _, gradients = unrolled_gradient(
        lambda ws: (a * ws[0] ** 2).sum(),
        lambda ws: (b * ws[0]).sum(),
        [a, b],
        sgd(w, lr=0.1),
        hessian=hessian,
        radius=0.01,
    )
    ahead = 3.0 - 0.1 * 6.0
    assert [g.item() for g in gradients] == pytest.approx([-0.1 * 6.0, ahead])


@pytest.mark.parametrize("hessian", HESSIANS)
def test_where_weights_do_not_matter_the_direct_term_is_all(hessian: str):
    a = torch.full((1,), 2.0, dtype=torch.float64, requires_grad=True)
    _, (gradient,) = unrolled_gradient(
        lambda ws: (a * ws[0] ** 2).sum(),
        lambda ws: (3.0 * a).sum(),
        [a],
        sgd(torch.tensor([3.0]).double(), lr=0.1),
        hessian=hessian,
        radius=0.01,
    )
    assert gradient.item() == 3.0


@pytest.mark.parametrize("hessian", HESSIANS)
def test_only_what_differentiates_twice_asks_for_a_form_that_can(hessian: str, monkeypatch):
    asked = []

    def twice(needed: bool) -> AbstractContextManager[None]:
        asked.append(needed)
        return nullcontext()

    monkeypatch.setattr(second_order, "twice_differentiable", twice)
    test_zero_learning_rate_is_first_order_exactly(hessian)
    assert asked == [hessian == "exact"]


@pytest.mark.parametrize("radius", [0.0, -0.5])
def test_a_radius_that_is_not_positive_is_refused(radius: float):
    with pytest.raises(ValueError, match=f"radius: expected a number above 0, found {radius}"):
        SecondOrder("exact", radius)


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("hessian", HESSIANS)
def test_finite_differences_refuse_gates_that_are_drawn(hessian: str, drawn: bool):
    update = SecondOrder(hessian, 0.01)
    strategy = SimpleNamespace(
        weight_optimizer=sgd(torch.ones(1), lr=0.1),
        relaxation=SimpleNamespace(samples=drawn),
        topology=None,
    )
    refused = hessian == "finite_difference" and drawn
    with pytest.raises(ValueError, match="draws new ones") if refused else nullcontext():
        update.setup(nn.Module(), strategy)


@pytest.mark.parametrize("drawn", ["topology", "noise"])
def test_finite_differences_refuse_all_else_that_is_drawn(drawn: str):
    still, net = SimpleNamespace(samples=False), nn.Sequential()
    strategy = SimpleNamespace(
        weight_optimizer=sgd(torch.ones(1), lr=0.1), relaxation=still, topology=still
    )
    update = SecondOrder("finite_difference", 0.01)
    update.setup(net, strategy)
    if drawn == "noise":
        net.append(Noise(2, 2, 1, affine=False, search=True))
    else:
        strategy.topology = SimpleNamespace(samples=True)
    with pytest.raises(ValueError, match=f"found .*{'noise' if drawn == 'noise' else 'topology'}"):
        update.setup(net, strategy)


def test_the_constants_of_a_step_are_its_settings_and_whether_momentum_has_begun():
    update, w = SecondOrder("exact", 0.01), torch.ones(1)
    optimizer = sgd(w, lr=0.1, momentum=0.9, weight_decay=3e-4)
    update.setup(
        nn.Module(),
        SimpleNamespace(
            weight_optimizer=optimizer, relaxation=SimpleNamespace(samples=False), topology=None
        ),
    )
    assert update.constants() == (False, 0.9, False, 3e-4)
    w.grad = torch.ones(1)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.05  # the pass reads it from a tensor
    assert update.constants() == (True, 0.9, False, 3e-4)


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("hindrance", ["none", "gates", "edges"])
def test_auto_is_finite_differences_on_a_gpu_where_passes_are_equal(
    on_gpu: bool, hindrance: str, monkeypatch
):
    monkeypatch.setattr(second_order, "launches", lambda device: on_gpu)
    w = torch.ones(1)
    strategy = SimpleNamespace(
        weight_optimizer=sgd(w, lr=0.1),
        relaxation=SimpleNamespace(samples=hindrance == "gates"),
        topology=None,
        regularisation=object() if hindrance == "edges" else None,
    )
    update = SecondOrder("auto", 0.01)
    update.setup(nn.Linear(1, 1), strategy)
    finite = on_gpu and hindrance == "none"
    assert update.hessian == ("finite_difference" if finite else "exact")


def test_alphas_get_the_unrolled_gradient_of_the_weights_that_are_left(monkeypatch):
    """The bias was pruned; the gradient is that of `unrolled_gradient`, alpha by alpha."""
    net, alphas = nn.Linear(2, 1), [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    expected, seen = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])], []

    def unrolled(train: Any, val: Any, arch: Any, optimizer: Any, **how: Any) -> Any:
        seen.append((arch, how))
        val([net.weight])  # the loss with other weights, by name
        return torch.tensor(0.5), expected

    def loss(logits: Any, batch: Any, role: str) -> Any:
        seen.append((batch, role))
        return torch.tensor(0.0), None

    monkeypatch.setattr(second_order, "unrolled_gradient", unrolled)
    strategy = SimpleNamespace(
        weights=[net.weight], arch_parameters=lambda: alphas, weight_optimizer=None, loss=loss
    )
    update = SecondOrder("exact", 0.01)
    assert float(update.alpha_gradients(strategy, net, "train", "val")) == 0.5
    assert [alpha.grad for alpha in alphas] == expected
    assert seen[1:] == [("val", "val")]
    assert seen[0][1] == {"hessian": "exact", "radius": 0.01, "rates": None}
    assert update.other_weights
