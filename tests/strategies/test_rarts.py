"""RARTS: two copies of the weights, updated in turn; numbers are those of the sheet."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor, nn

from search_spaces.space import Space
from strategies.gradients import eagerly
from strategies.strategy import Strategy
from strategies.update.first_order import FirstOrder
from strategies.update.relaxed import Relaxed
from strategies.update.second_order import SecondOrder
from supernets.network import Network, supernet

POINTS = [  # lambda, beta -> a, w, y
    (1, 1, 4, 2, -2),
    (1, 2, 2, 1, 0),
    (2, 2, 1.6, 1.2, 0.4),
    (10, 1, 2.105263, 2.0, -0.105263),
    (10, 10, 1.081081, 1.027027, 0.918919),
    (50, 50, 1.015228, 1.005076, 0.984772),
    (100, 100, 1.007557, 1.002519, 0.992443),
]
STEPS = [  # lambda = beta = 10, rate 0.01 -> w, y, a
    (-1.2, -1.94, 1.3994),
    (-0.75412, -1.835406, 1.00705006),
    (-0.510014588, -1.7129373594, 0.7407665040),
]
BATCH = torch.zeros(1, 1), torch.zeros(1, dtype=torch.long)


class Weight(nn.Module):
    """A network of one weight, which it returns."""

    def __init__(self, w: float):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[w]], dtype=torch.float64))

    def forward(self, x: Tensor, mixture: None) -> Tensor:
        return self.w


class Solvable:
    """L_val = a w - 2 a + 1 and L_train = (w - a)^2; its bilevel optimum is (1, 1).

    What an update needs of a strategy.
    """

    clip = None
    gradients = staticmethod(eagerly)
    topology = relaxation = type("Still", (), {"samples": False})()

    def __init__(self, update: Any, rate: float, *, a: float = 2.0, w: float = -2.0):
        self.update, self.net = update, Weight(w)
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.weights, self.rate = [self.net.w], rate
        self.weight_optimizer = self.make_weight_optimizer(self.weights)
        self.alpha_optimizer = torch.optim.SGD([self.a], lr=rate)
        update.setup(self.net, self)

    def make_weight_optimizer(self, weights: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(weights, lr=self.rate)

    def arch_parameters(self) -> list[nn.Parameter]:
        return [self.a]

    def loss(self, net: Any, batch: Any, role: str = "train", offsets: None = None) -> Any:
        logits = net(batch[0], None)
        w, a = logits.squeeze(), self.a
        return (a * w - 2 * a + 1 if role == "val" else (w - a) ** 2), logits

    def step(self, times: int = 1) -> "Solvable":
        for _ in range(times):
            self.update.step(self, self.net, BATCH, BATCH, move_alphas=True)
        return self

    def at(self) -> tuple[float, ...]:
        return self.net.w.item(), self.update.copy["w"].item(), self.a.item()


def set_copy(found: Solvable, y: float) -> Solvable:
    with torch.no_grad():
        found.update.copy["w"].fill_(y)
    return found


def relaxed(lam: float, beta: float, rate: float = 0.01, *, reuse: bool = False) -> Solvable:
    return Solvable(Relaxed(lam, beta, reuse), rate)


def exact(lam: float, beta: float) -> tuple[float, ...]:
    """w, y, a of the stationary point."""
    a = 4 * lam * beta / (4 * lam * beta - beta - 2 * lam)
    return a * (1 - 1 / (2 * lam)), 2 - a, a


# -- 1: the solvable model


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize(("lam", "beta", "a", "w", "y"), POINTS)
def test_rarts_1_the_point_of_the_table_is_stationary(
    lam: float, beta: float, a: float, w: float, y: float, reuse: bool
):
    at = exact(lam, beta)
    assert at == pytest.approx((w, y, a), abs=1e-6)
    found = Solvable(Relaxed(lam, beta, reuse), 0.001, a=at[2], w=at[0])
    assert set_copy(found, at[1]).step().at() == pytest.approx(at, abs=1e-12)


DESCENTS = [(0, 0.3, 120), (1, 0.2, 85), (2, 0.2, 65), (3, 0.08, 190), (4, 0.02, 860),
            (5, 0.01, 960), (6, 0.007, 910)]  # fmt: skip


@pytest.mark.parametrize(
    ("point", "rate", "steps"),
    [pytest.param(*d, marks=[] if d[0] == 2 else pytest.mark.slow) for d in DESCENTS],
)
def test_rarts_1_gradient_descent_ends_at_the_point_of_the_table(
    point: int, rate: float, steps: int
):
    lam, beta, *_ = POINTS[point]
    found = relaxed(lam, beta, rate).step(steps).at()
    assert found == pytest.approx(exact(lam, beta), abs=1e-6)


def test_rarts_1_the_trajectory_is_that_of_gauss_seidel():
    found = relaxed(10, 10)
    for expected in STEPS:
        assert found.step().at() == pytest.approx(expected, abs=1e-9)


def test_rarts_1_gradients_at_old_points_have_another_trajectory():
    """That of `reuse`, and of an a that moves first: the numbers above tell the order."""
    assert relaxed(10, 10, reuse=True).step().at()[:2] == pytest.approx(STEPS[0][:2])
    assert relaxed(10, 10, reuse=True).step().at()[2] != pytest.approx(STEPS[0][2], abs=0.1)


@pytest.mark.parametrize(("rate", "steps"), [(0.02, 852), (0.01, 1939)])
@pytest.mark.slow
def test_rarts_1_steps_until_the_point_is_near(rate: float, steps: int):
    """Within 1e-6 of the point first at the next step."""
    found, end = relaxed(10, 10, rate).step(steps), pytest.approx(exact(10, 10), abs=1e-6)
    assert found.at() != end
    assert found.step().at() == end


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "rate"), [(50, 0.02), (100, 0.01)])
def test_rarts_1_too_large_steps_diverge(weight: float, rate: float):
    found = relaxed(weight, weight, rate)
    early = max(abs(found.step().at()[0]) for _ in range(20))
    found.step(200)
    assert max(abs(found.step().at()[0]) for _ in range(20)) > 2 * early


@pytest.mark.slow
def test_rarts_1_first_order_darts_ends_at_the_wrong_point():
    found = Solvable(FirstOrder(), 0.1).step(250)
    assert (found.net.w.item(), found.a.item()) == pytest.approx((2, 2), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("xi", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_rarts_1_second_order_darts_depends_on_its_step(xi: float):
    found = Solvable(SecondOrder("exact", 0.01), xi)
    found.alpha_optimizer.param_groups[0]["lr"] = 0.1
    found.step(250)
    end = 2 / (1 + 2 * xi)
    assert (found.net.w.item(), found.a.item()) == pytest.approx((end, end), abs=1e-6)


# -- 2: when there is a minimum


GRID = [(0.25, 1.0), (0.25, 4.0), (0.4, 2.0), (0.6, 2.0), (1.0, 0.5), (1.0, 1.0), (2.0, 0.5)]


@pytest.mark.slow
@pytest.mark.parametrize(("lam", "beta"), GRID)
def test_rarts_2_the_loss_has_a_minimum_where_the_predicate_says_so(lam: float, beta: float):
    stable = 4 * lam * beta > beta + 2 * lam
    found = relaxed(lam, beta, 0.3).step(310).at()
    if stable:
        assert found == pytest.approx(exact(lam, beta), abs=1e-5)
    else:
        assert abs(found[2]) > 1e3


# -- 3: what a step costs


@pytest.mark.parametrize(("reuse", "passes", "backward"), [(False, 3, 4), (True, 2, 2)])
def test_rarts_3_passes_of_a_step_and_no_second_derivative(
    reuse: bool, passes: int, backward: int, monkeypatch
):
    found = relaxed(10, 10, reuse=reuse)
    names, graphs = [], []
    run = torch.autograd.backward

    def counted(loss: Any, gradient: Any, retain: Any, create: bool, **more: Any) -> None:
        graphs.append(create)
        run(loss, gradient, retain, create, **more)

    def noted(name: str, *rest: Any) -> Any:
        names.append(name)
        return eagerly(name, *rest)

    monkeypatch.setattr(torch.autograd, "backward", counted)
    found.gradients = noted
    found.step()
    assert len(names) == passes
    assert graphs == [False] * backward


# -- 4: coupling


def ready(space: Space, *overrides: str) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    config = composed("strategy=rarts", *overrides).strategy
    small = space.resize(
        nodes=1, channels=4, candidates=["none", "skip_connect", "sep_conv_3x3"],
        input_shape=(3, 8, 8),
    )  # fmt: skip
    strategy = make(config, space=small)
    net = supernet(small, strategy.mixed_op).train()
    strategy.setup(net, torch.device("cpu"))
    return net, strategy


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 3, 8, 8, generator=source), torch.randint(10, (8,), generator=source))
        for _ in range(count)
    ]


@pytest.mark.slow
def test_rarts_4_uncoupled_networks_are_trained_independently(toy_darts: Space):
    net, strategy = ready(toy_darts, "strategy.update.coupling=0")
    other, alone = ready(toy_darts, "strategy/update=first_order")
    for images in batches(2):
        strategy.step(net, images, images, progress=0.0, move_alphas=False)
        alone.step(other, images, images, progress=0.0, move_alphas=False)
    assert all(map(torch.equal, net.state_dict().values(), other.state_dict().values()))
    copied = strategy.update.copy | strategy.update.buffers
    assert all(torch.equal(copied[name], value) for name, value in other.state_dict().items())


@pytest.mark.slow
def test_rarts_4_the_distance_falls_as_one_over_the_coupling():
    distances = []
    for beta in (20.0, 80.0):
        w, y, _ = relaxed(1, beta, 1.2 / beta).step(800).at()
        distances.append(abs(w - y))
    slope = math.log(distances[1] / distances[0]) / math.log(4)
    assert slope == pytest.approx(-1, abs=0.05)


# -- what is not in the sheet


def test_rarts_each_copy_sees_its_own_images_and_statistics(toy_darts: Space):
    net, strategy = ready(toy_darts)
    train, val = batches(2)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    strategy.step(net, train, val, progress=0.0, move_alphas=True)
    counts = [n for n in before if n.endswith("num_batches_tracked")]
    mine, theirs = strategy.update.buffers, dict(net.named_buffers())
    assert {int(theirs[n]) for n in counts} == {int(mine[n]) for n in counts} == {1}
    means = [n for n in before if n.endswith("running_mean")]
    assert any(not torch.equal(theirs[n], mine[n]) for n in means)
    assert all(p.requires_grad for p in [*net.parameters(), *strategy.update.copy.values()])


def test_rarts_in_a_warm_up_the_copy_follows(toy_darts: Space):
    net, strategy = ready(toy_darts)
    (train,) = batches(1)
    metrics = strategy.step(net, train, None, progress=0.0, move_alphas=False)
    copied = strategy.update.copy | strategy.update.buffers
    assert all(torch.equal(copied[name], value) for name, value in net.state_dict().items())
    assert set(metrics) == {"train_loss", "train_accuracy"}


def test_rarts_rates_of_the_copy_follow_the_schedule(toy_darts: Space):
    net, strategy = ready(toy_darts)
    strategy.epoch_start(1, 2)
    train, val = batches(2)
    strategy.step(net, train, val, progress=0.5, move_alphas=True)
    (mine,), (theirs,) = (
        strategy.update.optimizer.param_groups,
        strategy.weight_optimizer.param_groups,
    )
    assert mine["lr"] == theirs["lr"] < 0.025


def test_a_copy_of_both_steps_as_they_do(toy_darts: Space):
    """A budget of seconds and the probe of memory time a copy."""
    net, strategy = ready(toy_darts)
    again, other = copy.deepcopy((net, strategy))
    train, val = batches(2)
    for one, its in ((net, strategy), (again, other)):
        its.step(one, train, val, progress=0.0, move_alphas=True)
    for name, y in strategy.update.copy.items():
        assert torch.equal(other.update.copy[name], y)


def test_rarts_resumes_with_both_copies_bit_for_bit(toy_darts: Space):
    images = batches(8)
    net, strategy = ready(toy_darts)

    def steps(net: Network, strategy: Strategy, some: list[Any]) -> None:
        for train, val in zip(some[::2], some[1::2], strict=True):
            strategy.step(net, train, val, progress=0.0, move_alphas=True)

    steps(net, strategy, images[:4])
    again, other = ready(toy_darts)
    again.load_state_dict(net.state_dict())
    other.load_state_dict(copy.deepcopy(strategy.state_dict()))
    steps(net, strategy, images[4:])
    steps(again, other, images[4:])
    for found, expected in (
        (other.arch_parameters(), strategy.arch_parameters()),
        (again.state_dict().values(), net.state_dict().values()),
        (other.update.copy.values(), strategy.update.copy.values()),
        (other.update.buffers.values(), strategy.update.buffers.values()),
    ):
        assert all(map(torch.equal, found, expected))


def test_rarts_says_what_its_images_and_weights_are():
    """Logits of four images, of which two are of their class: 0 and 2, not the others."""
    update = make(composed("strategy=rarts").strategy["update"])
    assert (update.two_level, update.other_weights) == (True, True)
    logits = torch.eye(3)[torch.tensor([0, 2, 2, 1])].requires_grad_()
    batch = torch.zeros(4, 1), torch.tensor([0, 1, 2, 2])
    strategy = SimpleNamespace(loss=lambda net, batch, role: (logits.sum(), logits))
    found = update._gradients(strategy, None, "val", [logits], batch)
    assert float(found["val_accuracy"]) == 0.5


def test_both_copies_have_the_weight_decay_that_a_stopping_rule_raises(toy_darts: Space):
    given = "strategy=rdarts_adaptive", "strategy/update=relaxed"
    strategy: Strategy = make(composed(*given).strategy, space=toy_darts)
    net = supernet(toy_darts, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    strategy.stopping._use(0.02)
    shape = toy_darts.input_shape
    batch = torch.zeros(2, *shape), torch.zeros(2, dtype=torch.long)
    strategy.step(net, batch, batch, progress=0.0, move_alphas=False)
    assert [group["weight_decay"] for group in strategy.update.optimizer.param_groups] == [0.02]
