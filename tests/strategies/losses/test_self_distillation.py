"""Self-distillation against closed forms (self-distillation sheet, section 8)."""

import copy
import inspect
import io
import math
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from archsmith.cli import naming
from search_spaces.darts import darts
from search_spaces.space import Space
from strategies.contracts import Relaxation
from strategies.gradients import Batch
from strategies.losses.distillation import distillation, hard_vote, soft_vote
from strategies.losses.self_distillation import SelfDistillation
from strategies.strategy import Strategy
from strategies.update.second_order import unrolled_gradient
from supernets.frozen import frozen_statistics
from supernets.mixture import GroupMixture, Mixture
from supernets.network import Network, supernet

CONF = Path(__file__).resolve().parents[3] / "conf"
DEFAULTS = OmegaConf.to_container(
    OmegaConf.load(CONF / "strategy" / "losses" / "self_distillation.yaml").self_distillation
)
NOTHING = Mixture({})


def term(**settings: Any) -> SelfDistillation:
    """The ingredient at full weight from the start; other settings as in its YAML."""
    chosen = {k: v for k, v in DEFAULTS.items() if not k.startswith("_")}
    return SelfDistillation(**chosen | {"ramp": [0.0, 0.0]} | settings)


class Linear(nn.Module):
    """Logits x @ w for x (B, D), w (D, classes)."""

    def __init__(self, w: Tensor):
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        return x @ self.w


def one_step(loss: SelfDistillation, net: nn.Module, x: Tensor) -> Tensor:
    """The term of a step in which the weights stay; its life cycle is run through."""
    loss.before_step(0.5)
    found = loss(net, (x, x), net(x, NOTHING), NOTHING)
    loss.after_step(net, None)
    return found


# -- real strategies


class Sampled(Relaxation):
    """Draws one candidate an edge, one-hot forward and softmax gradient."""

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        noise = -torch.empty_like(alphas).exponential_().log()
        soft = (alphas + noise).masked_fill(~alive, -torch.inf).softmax(1)
        index = soft.argmax(1)
        return F.one_hot(index, soft.size(1)) + soft - soft.detach(), index

    def expected(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        return alphas.softmax(1), None


@pytest.fixture
def tiny() -> Space:
    return darts(
        layers=3,
        nodes=2,
        channels=8,
        candidates=["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3"],
        input_shape=(3, 8, 8),
        classes=10,
    )


METHODS = {
    "darts": ["strategy=darts"],
    "pcdarts": ["strategy=pcdarts"],
    "exact": ["strategy=darts_second_order"],
    "finite_difference": [
        "strategy=darts_second_order",
        "strategy.update.hessian=finite_difference",
    ],
    "sampled": ["strategy=darts"],
}
TAUGHT = "+strategy/losses=self_distillation"
FULL = "strategy.losses.self_distillation.ramp=[0,0]"


@cache
def configured(method: str, *overrides: str) -> DictConfig:
    naming.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=[*METHODS[method], *overrides]).strategy


def build(space: Space, method: str, *overrides: str) -> tuple[Network, Strategy]:
    """Supernet and strategy, set up, with lively alphas; the same numbers whatever the losses."""
    config = configured(method, *overrides)
    torch.manual_seed(1)
    strategy = instantiate(config, _convert_="all")(space=space)
    if method == "sampled":
        strategy.relaxation = Sampled()
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, torch.device("cpu"))
    for group in strategy.alpha_optimizer.param_groups:
        group["lr"] = 0.1
    return net, strategy


def batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, 8, 8, generator=draw)
    return x, torch.randint(10, (4,), generator=draw)


def run(net: Network, strategy: Strategy, first: int, steps: int) -> list[float]:
    """Steps `first`, ..., on batches of their number; training losses."""
    losses = []
    for t in range(first, first + steps):
        metrics = strategy.step(net, batch(t), batch(100 + t), progress=t / 100, move_alphas=True)
        losses.append(float(metrics["train_loss"]))
    return losses


def everything(net: Network, strategy: Strategy) -> dict[str, Tensor]:
    """Weights, buffers, alphas, betas and the random stream."""
    arch = {name: p.detach().clone() for name, p in strategy.named_arch_parameters().items()}
    state = {name: value.clone() for name, value in net.state_dict().items()}
    return state | arch | {"rng": torch.get_rng_state()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


def self_distillation(strategy: Strategy) -> SelfDistillation:
    return strategy.losses["self_distillation"]


# -- 1: weight 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_selfdistill_1_weight_zero_is_the_plain_method_bit_for_bit(tiny: Space, method: str):
    plain = build(tiny, method)
    losses = run(*plain, 0, 4)
    expected = everything(*plain)
    zero = build(tiny, method, TAUGHT, FULL, "strategy.losses.self_distillation.weight=0")
    assert run(*zero, 0, 4) == losses
    assert not differing(everything(*zero), expected)
    assert not self_distillation(zero[1]).teachers.past


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_selfdistill_1_until_teachers_speak_nothing_differs(tiny: Space, method: str):
    """Also in the first step they teach: but for what descends, no bit of the state moves."""
    plain, taught = build(tiny, method), build(tiny, method, TAUGHT, FULL)
    kept = everything(*plain)["rng"]
    run(*plain, 0, 3)
    after_three, rng = everything(*plain), torch.get_rng_state()
    torch.set_rng_state(kept)
    run(*taught, 0, 3)
    assert not differing(everything(*taught), after_three)

    (loss,) = run(*taught, 3, 1)
    found = everything(*taught)
    torch.set_rng_state(rng)
    (plain_loss,) = run(*plain, 3, 1)
    expected = everything(*plain)
    assert loss != plain_loss
    moved = differing(found, expected)
    assert "rng" not in moved
    weights = {name for name, _ in taught[0].named_parameters()}
    assert moved & weights
    # Alphas of an unrolled step see the term in L_train, and other gates give other statistics.
    if method not in ("exact", "finite_difference"):
        assert loss > plain_loss
        assert moved <= weights


class Noisy(nn.Module):
    """Batch norm and drop-out around a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
        )
        self.frozen = nn.BatchNorm1d(3).eval()

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        return self.frozen(self.layers(x))


def test_selfdistill_1_teachers_draw_nothing_and_leave_batch_norm_and_modes():
    net, x = Noisy(), torch.randn(6, 4)
    net.train()
    net.frozen.eval()
    loss = term(teachers=1)
    loss.setup(net, None)
    one_step(loss, net, x)
    loss.before_step(0.5)
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    modes = {name: m.training for name, m in net.named_modules()}
    rng = torch.get_rng_state()

    q = loss.answer(x)

    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())
    assert {name: m.training for name, m in net.named_modules()} == modes
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm1d))
    first, norm, _, last = net.layers
    hidden = first(x)
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt()
    z = last(hidden)
    z = (z - z.mean(0)) / (z.var(0, unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(q, (z / 5).softmax(1), atol=1e-6, rtol=1e-5)


# -- 2 and 3: the pair that tells a no-op from success


def test_selfdistill_2_teachers_equal_to_the_student_teach_nothing(tiny: Space):
    net, strategy = build(
        tiny, "darts", TAUGHT, FULL, "strategy.weight_optimizer.lr=0", "strategy.min_lr=0"
    )
    for group in strategy.alpha_optimizer.param_groups:
        group["lr"] = 0.0
    run(net, strategy, 0, 3)
    loss = self_distillation(strategy)
    loss.before_step(0.5)
    assert loss.teaching
    x, y = batch(7)
    mixture = strategy.mixture()
    with frozen_statistics(net):
        logits = net(x, mixture)
    value = loss(net, (x, y), logits, mixture)
    gradients = torch.autograd.grad(value, strategy.weights, materialize_grads=True)
    assert abs(float(value.detach())) < 1e-7
    assert max(float(g.abs().max()) for g in gradients) < 1e-7


@pytest.mark.parametrize(("teachers", "lag"), [(1, 1), (3, 1), (2, 5)])
def test_selfdistill_3_step_lag_holds_and_asks_the_right_weights(teachers: int, lag: int):
    """w_t = t, so what a teacher answers to x = 1 says which step it is of."""
    net, x, oldest = Linear(torch.zeros(1, 2)), torch.ones(1, 1), teachers * lag
    loss = term(teachers=teachers, lag=lag)
    loss.setup(net, None)
    for t in range(14):
        with torch.no_grad():
            net.w.copy_(torch.tensor([[float(t), 0.0]]))
        loss.before_step(0.5)
        value = loss(net, (x, x), net(x, NOTHING), NOTHING)
        held = [int(one.weights["w"][0, 0]) for one in loss.teachers.past]
        assert held == list(range(max(0, t - oldest), t))
        assert loss.teaching == (t >= oldest)
        if t < oldest:
            assert value == 0
        else:
            asked = loss.teachers.logits(net, x)[:, 0, 0].tolist()
            assert asked == [t - (j + 1) * lag for j in range(teachers)]
            assert value > 1e-4
        with torch.no_grad():
            net.w.fill_(-1.0)  # the weight step comes before `after_step`
        loss.after_step(net, None)


@pytest.mark.parametrize(("teachers", "lag"), [(1, 1), (3, 1), (2, 2)])
def test_selfdistill_3_epoch_lag_asks_the_starts_of_epochs(teachers: int, lag: int):
    """Three steps an epoch: epoch e starts at w = 3e, and never asks its own start."""
    net, x, epochs = Linear(torch.zeros(1, 2)), torch.ones(1, 1), 7
    loss = term(teachers=teachers, lag=lag, unit="epoch")
    loss.setup(net, None)
    for t in range(3 * epochs):
        e = t // 3
        with torch.no_grad():
            net.w.copy_(torch.tensor([[float(t), 0.0]]))
        loss.before_step(0.5)
        value = loss(net, (x, x), net(x, NOTHING), NOTHING)
        assert loss.teaching == (e >= teachers * lag)
        if loss.teaching:
            asked = loss.teachers.logits(net, x)[:, 0, 0].tolist()
            assert asked == [3 * (e - (j + 1) * lag) for j in range(teachers)]
            assert value > 1e-4
        loss.after_step(net, None)
        if t % 3 == 2:
            loss.epoch_end(net, None, None, (e + 1) / epochs)


def test_selfdistill_3_the_loss_is_zero_at_a_standstill_and_positive_as_soon_as_w_moves():
    net, x = Linear(torch.tensor([[0.5, -0.5]])), torch.ones(1, 1)
    loss = term(teachers=1, temperature=1.0, weight=1.0)
    loss.setup(net, None)
    found = []
    for w in (0.5, 0.5, 0.5, 0.7, 0.7):
        with torch.no_grad():
            net.w[0, 0] = w
        found.append(float(one_step(loss, net, x).detach()))
    q, p = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-1.2))
    kl = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert found == pytest.approx([0, 0, 0, kl, 0], abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_selfdistill_3_in_a_real_step_the_past_is_what_the_weight_step_started_from(
    tiny: Space, method: str
):
    """Weights before the SGD step, gates after the alpha step: the student as it was."""
    net, strategy = build(tiny, method, TAUGHT, FULL)
    loss, passes = self_distillation(strategy), []

    def watch(module: nn.Module, args: tuple[Tensor, Mixture], output: Tensor) -> None:
        if output.requires_grad:  # a student's pass
            passes.append((args[1], output.detach()))

    past = loss.teachers.past
    for t in range(5):
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        handle = net.register_forward_hook(watch)
        run(net, strategy, t, 1)
        handle.remove()
        newest = past[-1]
        assert all(torch.equal(value, before[name]) for name, value in newest.weights.items())
        assert any(not torch.equal(p, before[name]) for name, p in net.named_parameters())
        mixture, logits = passes[-1]
        for name, part in mixture.groups.items():
            assert torch.equal(newest.mixture.groups[name].gates, part.gates)
            assert newest.mixture.groups[name].active == part.active
        if t >= 3:
            loss.before_step(0.5)
            again = loss.teachers.logits(net, batch(t)[0])[0]
            torch.testing.assert_close(again, logits, atol=1e-5, rtol=1e-4)
        passes.clear()


# -- 4 to 6: formulas


def test_selfdistill_4_is_half_d_fisher_d_for_a_small_displacement_d():
    torch.manual_seed(4)
    x, w = torch.randn(32, 5).double(), torch.randn(5, 4).double()
    direction = torch.randn(5, 4).double()
    direction /= direction.norm()
    p = (x @ w).softmax(1)
    fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # (B, classes, classes)
    errors = []
    for size in (1e-3, 1e-4):
        d = size * direction
        student = (w + d).requires_grad_()
        value = distillation(x @ student, p, 1.0)
        (gradient,) = torch.autograd.grad(value, student)
        moved = (fisher @ (x @ d)[:, :, None]).squeeze(2)  # (B, classes)
        Fd = x.T @ moved / len(x)
        value_error = abs(float(value.detach() / (0.5 * (d * Fd).sum())) - 1)
        gradient_error = float((gradient - Fd).norm() / Fd.norm())
        assert value_error < 0.01
        assert gradient_error < 0.01
        errors.append((value_error, gradient_error))
    for large, small in zip(*errors, strict=True):
        assert small / large == pytest.approx(0.1, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.3, 1.0, 3.0])
def test_selfdistill_5_the_best_answer_mixes_label_and_teacher(weight: float):
    q = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).double()
    y = torch.tensor([2])
    z = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    for _ in range(4000):
        loss = F.cross_entropy(z, y) + weight * distillation(z, q, 1.0)
        (gradient,) = torch.autograd.grad(loss, z)
        z = (z - 0.5 * gradient).detach().requires_grad_()
    best = (F.one_hot(y, 4) + weight * q) / (1 + weight)
    torch.testing.assert_close(z.detach().softmax(1), best, atol=1e-5, rtol=0)


def logit_gradient(z: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    z = z.clone().requires_grad_()
    q = (teacher / temperature).softmax(1)
    (gradient,) = torch.autograd.grad(distillation(z, q, temperature), z)
    return gradient


def test_selfdistill_6_gradient_size_does_not_depend_on_a_high_temperature():
    torch.manual_seed(6)
    z, teacher = torch.randn(16, 10).double(), torch.randn(16, 10).double()
    norms = {T: float(logit_gradient(z, teacher, T).norm()) for T in (20.0, 40.0)}
    assert norms[20.0] == pytest.approx(norms[40.0], rel=0.05)
    assert (norms[20.0] / 20**2) / (norms[40.0] / 40**2) == pytest.approx(4, rel=0.05)


def test_selfdistill_6_logit_gradient_and_its_limit():
    """T (p - q) for one image; at high temperature the difference of centred logits over N."""
    z, teacher = torch.tensor([[1.0, 0.0, -2.0]]).double(), torch.tensor([[0.0, 1.0, 0.5]]).double()
    expected = 2.0 * ((z / 2).softmax(1) - (teacher / 2).softmax(1))
    torch.testing.assert_close(logit_gradient(z, teacher, 2.0), expected)
    # centred: (4/3, 1/3, -5/3) and (-1/2, 1/2, 0)
    limit = torch.tensor([[11 / 6, -1 / 6, -5 / 3]]).double() / 3
    torch.testing.assert_close(logit_gradient(z, teacher, 1e5), limit, atol=1e-4, rtol=0)


def test_selfdistill_6_value_by_hand():
    """KL((3/4, 1/4) || (1/2, 1/2)) = 0.75 ln 1.5 + 0.25 ln 0.5, times T^2; a mean over images."""
    q = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(distillation(torch.zeros(2, 2), q, 5.0)) == pytest.approx(25 * kl / 2, rel=1e-5)


# -- 7: votes


def test_selfdistill_7_votes_by_a_hand_table():
    """Image 0: two of three name class 0. Image 1: three classes, a tie. Image 2: all agree."""
    probabilities = torch.tensor(
        [
            [[0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.2, 0.2, 0.6]],
            [[0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.1, 0.3, 0.6]],
            [[0.1, 0.9, 0.0], [0.3, 0.2, 0.5], [0.3, 0.1, 0.6]],
        ]
    )
    mean = torch.tensor([[0.4, 0.5, 0.1], [0.4, 0.3, 0.3], [0.2, 0.2, 0.6]])
    torch.testing.assert_close(soft_vote(probabilities), mean)
    torch.testing.assert_close(soft_vote(probabilities).sum(1), torch.ones(3))
    hard = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.3, 0.3], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(hard_vote(probabilities), hard)
    assert torch.isfinite(distillation(torch.zeros(3, 3), hard_vote(probabilities), 1.0))


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_selfdistill_7_equal_teachers_are_one_teacher_and_carry_no_gradient(vote: str):
    w, x = torch.tensor([[1.0, 0.0, -2.0]]), torch.tensor([[1.0], [-0.5]])
    answers = []
    for teachers in (1, 4):
        net = Linear(w)
        loss = term(teachers=teachers, vote=vote)
        loss.setup(net, None)
        for _ in range(teachers):
            one_step(loss, net, x)
        loss.before_step(0.5)
        q = loss.answer(x)
        assert not q.requires_grad
        answers.append(q)
    torch.testing.assert_close(answers[1], answers[0])
    torch.testing.assert_close(answers[0].sum(1), torch.ones(2))
    one_hot = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    torch.testing.assert_close(answers[0], (x @ w / 5).softmax(1) if vote == "soft" else one_hot)


def test_selfdistill_7_different_teachers_are_averaged_as_probabilities_not_as_weights():
    x, net = torch.ones(1, 1), Linear(torch.zeros(1, 2))
    loss = term(teachers=2, temperature=1.0)
    loss.setup(net, None)
    for w in (0.0, math.log(3.0), 9.0):
        with torch.no_grad():
            net.w[0, 0] = w
        loss.before_step(0.5)
        value = loss(net, (x, x), net(x, NOTHING), NOTHING)
        if w < 9.0:
            loss.after_step(net, None)
    torch.testing.assert_close(loss.answer(x), torch.tensor([[5 / 8, 3 / 8]]))  # of 1/2 and 3/4
    assert value > 0


# -- 8: the brake


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_selfdistill_8_momentum_is_braked_along_sharp_directions(temperature: float):
    """Displacements along an eigenvector of F shrink by mu - lr weight f: momentum mu I - lr w F.

    Near w = 0 all three classes have p = 1/3, so F = A A^T / 3, with eigenvalues 3 and 0.03 here.
    """
    mu, lr, weight, f = 0.9, 0.5, 0.5, (3.0, 0.03)
    u = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]).double()
    u = u / u.norm(dim=1, keepdim=True)
    A = torch.tensor([3.0, 0.3]).double()[:, None] * u  # the one "image": logits = w A

    class Embedded(Linear):
        def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
            return self.w @ x

    net = Embedded(torch.zeros(1, 2, dtype=torch.float64))
    loss = term(teachers=1, temperature=temperature, weight=weight)
    loss.setup(net, None)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=mu)
    buffer = torch.tensor([[1e-7, -2e-7]]).double()
    optimizer.state[net.w]["momentum_buffer"] = buffer.clone()
    moved = [torch.zeros(1, 2).double()]
    for _ in range(6):
        before = net.w.detach().clone()
        loss.before_step(0.5)
        value = loss(net, (A, A), net(A, NOTHING), NOTHING)
        optimizer.zero_grad()
        if value.requires_grad:
            value.backward()
        else:
            net.w.grad = torch.zeros_like(net.w)
        optimizer.step()
        loss.after_step(net, None)
        moved.append(net.w.detach() - before)
    torch.testing.assert_close(moved[1], -lr * mu * buffer)
    expected = torch.tensor([mu - lr * weight * f[0], mu - lr * weight * f[1]]).double()
    torch.testing.assert_close(expected, torch.tensor([0.15, 0.8925]).double())
    for before, after in pairwise(moved[1:]):
        torch.testing.assert_close((after / before)[0], expected, rtol=2e-3, atol=0)


# -- 9: which of the two steps carries the term


def alpha_gradients(net: Network, strategy: Strategy, train: Batch, val: Batch) -> list[Tensor]:
    strategy.alpha_optimizer.zero_grad()
    with frozen_statistics(net):
        strategy.update.alpha_gradients(strategy, net, train, val)
    return [p.grad.clone() for p in strategy.arch_parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["darts", "pcdarts"])
def test_selfdistill_9_alphas_descend_plain_cross_entropy_unless_asked(tiny: Space, method: str):
    found = {}
    for name, overrides in {
        "plain": [],
        "off": [TAUGHT, FULL],
        "on": [TAUGHT, FULL, "strategy.losses.self_distillation.on_alphas=true"],
    }.items():
        net, strategy = build(tiny, method, *overrides)
        run(net, strategy, 0, 4)
        if name == "plain":
            _, taught = build(tiny, method)
            kept = net
        else:
            taught = strategy
            net.load_state_dict(kept.state_dict())
        with torch.no_grad():
            for p in taught.arch_parameters():
                p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p))
        if name != "plain":
            self_distillation(taught).before_step(0.5)
            assert self_distillation(taught).teaching
        found[name] = alpha_gradients(net, taught, batch(50), batch(51))
    assert all(torch.equal(a, b) for a, b in zip(found["plain"], found["off"], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(found["plain"], found["on"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("hessian", ["exact", "finite_difference"])
def test_selfdistill_9_second_order_unrolls_the_distilled_loss_with_one_q(
    tiny: Space, hessian: str
):
    """L_train of the virtual step and of the perturbed passes has the term, L_val has not."""
    net, strategy = build(tiny, hessian, TAUGHT, FULL)
    run(net, strategy, 0, 3)
    loss, train, val = self_distillation(strategy), batch(50), batch(51)
    loss.before_step(0.5)
    q = loss.answer(train[0]).clone()
    loss.before_step(0.5)
    asked, ask = [], loss.teachers.logits
    loss.teachers.logits = lambda net, x: asked.append(x) or ask(net, x)
    found = alpha_gradients(net, strategy, train, val)
    assert len(asked) == 1
    assert asked[0] is train[0]

    names = [name for name, _ in net.named_parameters()]

    def logits(weights: Any, x: Tensor) -> Tensor:
        replaced = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(net, replaced, (x, strategy.mixture()))

    def train_loss(weights: Any, weight: float = 0.3) -> Tensor:
        z = logits(weights, train[0])
        log_p = (z / 5).log_softmax(1)
        kl = (q * (q.log() - log_p)).sum(1).mean()
        return F.cross_entropy(z, train[1]) + weight * 25 * kl

    def reference(weight: float) -> list[Tensor]:
        with frozen_statistics(net):
            return unrolled_gradient(
                lambda ws: train_loss(ws, weight),
                lambda ws: F.cross_entropy(logits(ws, val[0]), val[1]),
                strategy.arch_parameters(),
                strategy.weight_optimizer,
                hessian=hessian,
                radius=0.01,
            )[1]

    distilled, plain = reference(0.3), reference(0.0)
    far = max(float((a - b).abs().max()) for a, b in zip(distilled, plain, strict=True))
    near = max(float((a - b).abs().max()) for a, b in zip(distilled, found, strict=True))
    assert near < 0.02 * far


# -- every other ingredient


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("vote", ["soft", "hard"])
@pytest.mark.slow
def test_q_is_what_copies_of_the_whole_supernet_say(tiny: Space, method: str, vote: str):
    """Copied modules, the gates they ran with, a candidate pruned on the way: the term by hand."""
    net, strategy = build(
        tiny, method, TAUGHT, FULL, f"strategy.losses.self_distillation.vote={vote}"
    )
    loss = self_distillation(strategy)
    copies: list[nn.Module] = []
    for t in range(5):
        if t == 2:
            alive = {name: mask.clone() for name, mask in strategy.alive.items()}
            alive["normal"][0, 2] = False
            strategy.prune(alive)
        copies.append(copy.deepcopy(net))
        run(net, strategy, t, 1)
    x, y = batch(60)
    mixtures = [one.mixture for one in loss.teachers.past]  # of steps 2, 3, 4
    with torch.no_grad():
        answers = [one(x, m) for one, m in zip(copies[-3:], mixtures, strict=True)]
    probabilities = torch.stack([(z / 5).softmax(1) for z in answers])
    q = soft_vote(probabilities) if vote == "soft" else hard_vote(probabilities)

    loss.before_step(0.5)
    torch.testing.assert_close(loss.answer(x), q, atol=1e-5, rtol=1e-4)
    mixture = strategy.mixture()
    z = net(x, mixture)
    by_hand = 0.3 * 25 * (torch.special.xlogy(q, q) - q * (z / 5).log_softmax(1)).sum(1).mean()
    assert float(loss(net, (x, y), z, mixture).detach()) == pytest.approx(
        float(by_hand.detach()), abs=1e-4
    )
    gates = [m.groups["normal"].gates for m in mixtures]
    assert not torch.equal(gates[0], gates[2]), "teachers have their own alphas"


def test_teachers_keep_their_gates_when_alphas_are_moved_in_place():
    """A relaxation may hand out the alphas themselves; an optimiser then writes into them."""
    alphas = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    mixture = Mixture({"cell": GroupMixture(alphas, alphas[:, 0], [[0, 1]])})
    net = Linear(torch.zeros(1, 2))
    loss = term(teachers=1)
    loss.setup(net, None)
    loss.before_step(0.5)
    loss(net, (torch.ones(1, 1),) * 2, torch.zeros(1, 2), mixture)
    with torch.no_grad():
        alphas.fill_(7.0)
    loss.after_step(net, None)
    kept = loss.teachers.past[-1].mixture.groups["cell"]
    assert kept.gates.tolist() == [[1.0, 2.0]]
    assert kept.factors is not None
    assert kept.factors.tolist() == [1.0]
    assert not kept.gates.requires_grad


def test_ramp_rises_between_its_two_shares():
    loss, net, x = term(ramp=[0.1, 0.2], teachers=1), Linear(torch.zeros(1, 2)), torch.ones(1, 1)
    loss.setup(net, None)
    found = {}
    for progress in (0.0, 0.05, 0.1, 0.125, 0.15, 0.2, 0.9):
        loss.before_step(progress)
        loss(net, (x, x), net(x, NOTHING), NOTHING)
        found[progress] = (pytest.approx(float(loss.strength), abs=1e-6), loss.teaching)
        loss.after_step(net, None)
    assert found == {
        0.0: (0.0, False),
        0.05: (0.0, False),
        0.1: (0.0, False),
        0.125: (0.075, True),
        0.15: (0.15, True),
        0.2: (0.3, True),
        0.9: (0.3, True),
    }


# -- state


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize("stop", [3, 6])
@pytest.mark.slow
def test_resumed_is_bit_for_bit_uninterrupted(tiny: Space, unit: str, stop: int):
    """Two steps an epoch, so a stop at 3 is amid one; with betas, and two teachers."""
    settings = [TAUGHT, FULL]
    for setting in (f"unit={unit}", "teachers=2"):
        settings.append(f"strategy.losses.self_distillation.{setting}")

    def go(net: Network, strategy: Strategy, first: int, last: int) -> list[float]:
        losses = []
        for t in range(first, last):
            losses += run(net, strategy, t, 1)
            if t % 2:
                strategy.epoch_end(net, None, (t + 1) / 10)
        return losses

    whole = build(tiny, "pcdarts", *settings)
    losses = go(*whole, 0, 8)
    expected = everything(*whole)

    net, strategy = build(tiny, "pcdarts", *settings)
    go(net, strategy, 0, stop)
    file = io.BytesIO()
    torch.save((net.state_dict(), strategy.state_dict(), torch.get_rng_state()), file)
    file.seek(0)
    weights, state, rng = torch.load(file, map_location="cpu", weights_only=True)
    net, strategy = build(tiny, "pcdarts", *settings)
    net.load_state_dict(weights)
    strategy.load_state_dict(state)
    torch.set_rng_state(rng)
    assert go(net, strategy, stop, 8) == losses[stop:]
    assert self_distillation(strategy).teaching
    assert not differing(everything(net, strategy), expected)


def test_loaded_teachers_stand_on_the_device_of_the_supernet():
    net, x = Linear(torch.zeros(1, 2)), torch.ones(1, 1)
    loss = term(teachers=1)
    loss.setup(net, None)
    mixture = Mixture({"cell": GroupMixture(torch.ones(1, 2), torch.ones(1), [[0, 1]])})
    for _ in range(2):
        loss.before_step(0.5)
        loss(net, (x, x), net(x, NOTHING), mixture)
        loss.after_step(net, None)
    elsewhere = term(teachers=1)
    elsewhere.setup(net.to("meta"), None)
    elsewhere.load_state_dict(loss.state_dict())
    (teacher,) = elsewhere.teachers.past
    part = teacher.mixture.groups["cell"]
    assert part.factors is not None
    assert teacher.weights["w"].is_meta
    assert part.gates.is_meta
    assert part.factors.is_meta
    assert elsewhere.strength.is_meta


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_teachers_on_a_cuda_device(tiny: Space):
    _, strategy = build(tiny, "pcdarts", TAUGHT, FULL)
    device = torch.device("cuda")
    net = supernet(tiny, strategy.mixed_op).train().to(device)
    strategy.setup(net, device)
    for t in range(5):
        train, val = ([part.to(device) for part in batch(seed)] for seed in (t, 100 + t))
        strategy.step(net, train, val, progress=0.5, move_alphas=True)
    loss = self_distillation(strategy)
    loss.load_state_dict(loss.state_dict())
    loss.before_step(0.5)
    assert loss.answer(batch(0)[0].to(device)).is_cuda


# -- settings


def test_yaml_lists_every_setting():
    taken = set(inspect.signature(SelfDistillation).parameters)
    assert {k for k in DEFAULTS if not k.startswith("_")} == taken


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": -0.1},
        {"temperature": 0.0},
        {"ramp": [0.2, 0.1]},
        {"ramp": [1.0, 1.0]},
        {"ramp": [0.1]},
        {"teachers": 0},
        {"teachers": True},
        {"lag": 1.5},
        {"unit": "batch"},
        {"vote": "loud"},
    ],
    ids=str,
)
def test_a_bad_setting_is_named(settings: dict[str, Any]):
    (name,) = settings
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        term(**settings)


def test_a_search_too_short_for_its_teachers_is_refused():
    net, x = Linear(torch.zeros(1, 2)), torch.ones(1, 1)
    for epochs, teaches in ((49, False), (50, True)):
        loss = term(teachers=7, lag=7, unit="epoch")  # 49 epochs old
        loss.setup(net, None)
        one_step(loss, net, x)
        if teaches:
            loss.epoch_end(net, None, None, 1 / epochs)
        else:
            with pytest.raises(ValueError, match="would never teach"):
                loss.epoch_end(net, None, None, 1 / epochs)
