"""The sheet temperature.md: known-answer tests 1 to 10 of section 6, then the contract."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.functional import jacobian

from search_spaces.space import Space
from strategies.relaxation.entropy import mean_entropy, temperature_at
from strategies.relaxation.softmax import Softmax
from strategies.relaxation.sparse_noisy import SparseNoisy
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.network import supernet


def made(start: float = 1.0, end: float | None = None, **changed: float | None) -> SparseNoisy:
    settings = {"noisy_edges": 0.0, "least_noise": 0.1, "final_entropy": None, "read_at": 1.0}
    return SparseNoisy(start, start if end is None else end, **settings | changed)  # type: ignore[arg-type]


def all_alive(alphas: Tensor) -> Tensor:
    return torch.ones_like(alphas, dtype=torch.bool)


def standard_error(p: Tensor, n: int) -> Tensor:
    return (p * (1 - p) / n).sqrt()


# -- 1: the limit case


def test_temperature_1_without_noise_is_darts_bit_for_bit():
    alphas, above = torch.randn(14, 8), torch.randn(14, 8)
    alive = torch.rand(14, 8) < 0.8
    alive[3] = False
    found, gradients = [], []
    for relaxation in (made(), Softmax(1.0, 1.0)):
        leaf = alphas.clone().requires_grad_()
        relaxation.before_step(0.7)
        gates, index = relaxation(leaf, alive)
        (gates * above).sum().backward()
        assert index is None
        found.append(gates)
        gradients.append(leaf.grad)
    assert torch.equal(*found)
    assert torch.equal(*gradients)
    assert torch.equal(made()(alphas, all_alive(alphas))[0], alphas.softmax(-1))


# -- 2: gradients


@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.1, 0.03])
def test_temperature_2_jacobian(temperature: float):
    alphas = torch.tensor([[0.3, 0.1, -0.2, 0.05]], dtype=torch.float64)
    relaxation = made(temperature).double()
    found = jacobian(lambda a: relaxation(a, all_alive(a))[0], alphas)[0, :, 0]
    p = (alphas[0] / temperature).softmax(0)
    torch.testing.assert_close(found, (p.diag() - p[:, None] * p) / temperature)


def test_temperature_2_gradient_of_two_ops_peaks_at_0_648_of_their_gap():
    for gap in (0.1, 0.5):
        best, steepest, share = 0.0, 0.0, 0.0
        for ratio in torch.arange(0.5, 0.8, 0.001).tolist():
            alphas = torch.tensor([[gap, 0.0]], dtype=torch.float64, requires_grad=True)
            gates, _ = made(ratio * gap).double()(alphas, all_alive(alphas))
            (slope,) = torch.autograd.grad(gates[0, 0], alphas)
            if slope[0, 0] > steepest:
                best, steepest, share = ratio, slope[0, 0].item(), gates[0, 0].item()
        assert best == pytest.approx(0.648, rel=0.01)
        assert steepest == pytest.approx(0.224 / gap, rel=0.002)
        assert share == pytest.approx(0.824, abs=0.002)


# -- 3: entropy


def test_temperature_3_entropy_of_a_known_row():
    alphas = torch.tensor([[0.3, 0.1, -0.2, 0.05]])
    tables = [(alphas, all_alive(alphas))]
    found = [float(mean_entropy(tables, t)) for t in (1.0, 0.3, 0.1, 0.03)]
    assert found == pytest.approx([0.9889, 0.8918, 0.4462, 0.0086], abs=5e-5)


def test_temperature_3_entropy_is_normalised_by_what_is_alive():
    tables = [
        (
            torch.tensor([[0.3, 0.1, -0.2, 0.05, 7.0], [1.0, 0.0, 0.0, 0.0, 0.0]]),
            torch.tensor(
                [[True] * 4 + [False], [True] + [False] * 4]
            ),  # nothing to decide: left out
        ),
        (torch.zeros(2, 3), torch.tensor([[True] * 3, [False] * 3])),  # uniform: 1; dead: left out
    ]
    assert float(mean_entropy(tables, 0.1)) == pytest.approx((0.446166 + 1) / 2, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.1])
def test_temperature_3_entropy_rises_by_variance_over_temperature_cubed(temperature: float):
    alphas = torch.tensor([[0.3, 0.1, -0.2, 0.05]], dtype=torch.float64)
    tables, step = [(alphas, all_alive(alphas))], 1e-5
    high, low = (mean_entropy(tables, temperature + d) for d in (step, -step))
    p = (alphas[0] / temperature).softmax(0)
    variance = (p * alphas[0] ** 2).sum() - (p * alphas[0]).sum() ** 2
    rise = (high - low) * math.log(4) / (2 * step)
    torch.testing.assert_close(rise, variance / temperature**3, rtol=1e-7, atol=0.0)


# -- 4: adaptive temperature


def test_temperature_4_bisection_meets_its_target():
    groups = [torch.randn(14, 8), 0.3 * torch.randn(9, 5)]
    tables = [(a, all_alive(a)) for a in groups]
    for target in (0.9, 0.5, 0.1):
        found = temperature_at(tables, target)
        assert float(mean_entropy(tables, found)) == pytest.approx(target, abs=1e-6)
        scaled = temperature_at([(3 * a, alive) for a, alive in tables], target)
        assert float(scaled / found) == pytest.approx(3.0, rel=1e-6)


def test_temperature_4_bisection_of_two_ops_in_closed_form():
    """p = 0.9 has entropy 0.325083 nats, and a gap of 0.5 gives it at 0.5 / ln 9 = 0.227560."""
    alphas = torch.tensor([[0.5, 0.0]])
    found = temperature_at([(alphas, all_alive(alphas))], 0.325083 / math.log(2))
    assert float(found) == pytest.approx(0.227560, abs=1e-6)


def test_temperature_4_equal_logits_leave_the_schedule():
    alphas = torch.full((3, 4), 0.7)
    assert temperature_at([(alphas, all_alive(alphas))], 0.5).item() == math.inf
    assert temperature_at([(alphas, ~all_alive(alphas))], 0.5).item() == math.inf
    relaxation = made(1.0, 0.5, final_entropy=0.1)
    end_epoch(relaxation, alphas, 0.5)
    relaxation.before_step(0.5)
    assert float(relaxation.temperature) == pytest.approx(0.5**0.5)


def end_epoch(relaxation: SparseNoisy, alphas: Tensor, progress: float) -> None:
    strategy = SimpleNamespace(shifted={"a": alphas}.__getitem__, alive={"a": all_alive(alphas)})
    relaxation.epoch_end(None, strategy, None, progress)  # type: ignore[arg-type]


def test_temperature_4_adaptive_is_the_colder_of_the_two_and_halves_at_most():
    """At t = 1/2 the target is 0.1^0.5; the gap 0.5 meets it at some T far below the schedule."""
    relaxation = made(1.0, 0.9, final_entropy=0.1)
    alphas = torch.tensor([[0.5, 0.0]])
    wanted = float(temperature_at([(alphas, all_alive(alphas))], 0.1**0.5))
    assert wanted < 0.2
    for temperature in (0.5, 0.25, wanted, wanted):
        end_epoch(relaxation, alphas, 0.5)
        relaxation.before_step(0.5)
        assert float(relaxation.temperature) == pytest.approx(temperature, rel=1e-6)
    end_epoch(relaxation, 100 * alphas, 0.5)  # sharper logits: it may warm up again, twofold
    relaxation.before_step(0.5)
    assert float(relaxation.temperature) == pytest.approx(2 * wanted, rel=1e-6)


def test_temperature_4_bound_is_part_of_the_state():
    relaxation, other = made(final_entropy=0.1), made(final_entropy=0.1)
    end_epoch(relaxation, torch.tensor([[0.5, 0.0]]), 0.5)
    other.load_state_dict(relaxation.state_dict())
    other.before_step(0.5)
    assert float(other.temperature) == 0.5


# -- 5: schedule


def test_temperature_5_schedule_is_exponential():
    relaxation, found = made(1.0, 0.02), []
    for step in range(101):
        relaxation.before_step(step / 100)
        found.append(float(relaxation.temperature))
    assert (found[0], found[-1]) == (1.0, pytest.approx(0.02, rel=1e-7))
    ratios = [after / before for before, after in pairwise(found)]
    assert ratios == pytest.approx([0.02**0.01] * 100, rel=1e-6)
    assert max(ratios) < 1


def test_temperature_5_schedule_starts_after_the_warmup():
    relaxation = made(1.0, 0.01)
    relaxation.setup(None, SimpleNamespace(warmup=0.2))  # type: ignore[arg-type]
    found = []
    for progress in (0.0, 0.2, 0.6, 1.0):
        relaxation.before_step(progress)
        found.append(float(relaxation.temperature))
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.01])


# -- 6: noise


def test_temperature_6_winners_follow_the_softmax():
    n, alphas = 100_000, torch.tensor([0.3, 0.1, -0.2, 1.0])
    rows = alphas.expand(n, 4)
    gates, _ = made(1e-3, noisy_edges=1.0, least_noise=1.0)(rows, all_alive(rows))
    wins = F.one_hot(gates.argmax(1), 4).double().mean(0)
    p = alphas.double().softmax(0)
    assert ((wins - p).abs() < 4 * standard_error(p, n)).all()


def test_temperature_6_scale_of_the_noise():
    """The softmax that winners follow is that of a / s, where s = max(T, least_noise)."""
    n, alphas = 100_000, torch.tensor([0.1, 0.0])
    rows = alphas.expand(n, 2)
    for temperature, floor, scale in ((0.01, 0.1, 0.1), (0.4, 0.1, 0.4)):
        gates, _ = made(temperature, noisy_edges=1.0, least_noise=floor)(rows, all_alive(rows))
        p = torch.tensor(1 / (1 + math.exp(-0.1 / scale)))
        assert (gates.argmax(1) == 0).double().mean() == pytest.approx(
            float(p), abs=4 * float(standard_error(p, n))
        )


def test_temperature_6_mean_gradient_does_not_saturate():
    """At T = 0.05 it is that of softmax(a / s), where without noise it is a hundredth."""
    n, scale = 200_000, 0.5
    alphas, weights = torch.tensor([0.6, 0.0, 0.1]), torch.tensor([0.0, 1.0, 2.0])
    rows = alphas.repeat(n, 1).requires_grad_()
    gates, _ = made(0.05, noisy_edges=1.0, least_noise=scale)(rows, all_alive(rows))
    (gradient,) = torch.autograd.grad((gates * weights).sum(), rows)
    q = (alphas / scale).softmax(0)
    limit = q * (weights - (q * weights).sum()) / scale
    error = gradient.std(0) / n**0.5
    assert ((gradient.mean(0) - limit).abs() < 4 * error + 0.005).all()
    assert (limit.abs() > 0.09).all()
    row = alphas[None].clone().requires_grad_()
    (cold,) = torch.autograd.grad((made(0.05)(row, all_alive(row))[0] * weights).sum(), row)
    assert cold.abs().max() < 0.003


# -- 7: mask


def test_temperature_7_mask_is_drawn_per_edge():
    n, share, alphas = 20_000, 0.25, torch.randn(8)
    rows = alphas.expand(n, 8)
    gates, _ = made(0.1, noisy_edges=share)(rows, all_alive(rows))
    quiet, _ = made(0.1)(rows, all_alive(rows))
    touched = (gates != quiet).any(1)
    assert torch.equal(gates[~touched], quiet[~touched])
    assert (gates != quiet)[touched].double().mean() > 0.99  # all candidates of an edge, or none
    error = (share * (1 - share) / n) ** 0.5
    assert touched.double().mean().item() == pytest.approx(share, abs=4 * error)


def test_temperature_7_no_noisy_edge_is_a_tempered_softmax_and_one_is_noise_everywhere():
    alphas = torch.randn(500, 8)
    alive = all_alive(alphas)
    assert torch.equal(made(0.1)(alphas, alive)[0], (alphas / 0.1).softmax(-1))
    noisy = made(0.1, noisy_edges=1.0)
    assert (noisy(alphas, alive)[0] != made(0.1)(alphas, alive)[0]).any(1).all()
    assert (made().samples, noisy.samples) == (False, True)


def test_temperature_7_draws_are_fresh_seeded_and_off_in_eval_mode():
    alphas, noisy = torch.randn(6, 4), made(0.1, noisy_edges=1.0)
    alive = all_alive(alphas)
    torch.manual_seed(1)
    first, second = noisy(alphas, alive)[0], noisy(alphas, alive)[0]
    torch.manual_seed(1)
    assert torch.equal(first, noisy(alphas, alive)[0])
    assert not torch.equal(first, second)
    assert torch.equal(noisy.eval()(alphas, alive)[0], (alphas / 0.1).softmax(-1))


# -- 8: saturation


def flips(noisy_edges: float, steps: int = 2000) -> bool:
    """Whether gradient descent on the gate of the wrong op, which leads by 0.5, turns the edge."""
    relaxation = made(0.02, noisy_edges=noisy_edges)
    alphas = torch.tensor([[0.5, 0.0]], requires_grad=True)
    for _ in range(steps):
        gates, _ = relaxation(alphas, all_alive(alphas))
        (gradient,) = torch.autograd.grad(gates[0, 0], alphas)
        with torch.no_grad():
            alphas -= 0.1 * gradient
        if alphas[0, 1] > alphas[0, 0]:
            return True
    return False


def test_temperature_8_cold_softmax_is_stuck_and_noise_frees_it():
    assert not flips(0.0)
    for seed in range(3):
        torch.manual_seed(seed)
        assert flips(1.0)
        assert flips(0.25)


# -- 9: the gap to the discrete network


def test_temperature_9_supernet_becomes_its_discretisation(toy_darts: Space):
    net = supernet(toy_darts, MixedOp).train()
    x = torch.randn(32, 3, 16, 16)
    alphas = {name: torch.randn(len(c.edges), c.width) for name, c in toy_darts.groups.items()}

    @torch.no_grad()
    def answer(gates: dict[str, Tensor]) -> Tensor:
        groups = {
            name: GroupMixture(g, None, [list(range(g.size(1)))] * len(g))
            for name, g in gates.items()
        }
        return net(x, Mixture(groups))

    discrete = answer({name: F.one_hot(a.argmax(1), a.size(1)) * 1.0 for name, a in alphas.items()})
    gaps, agreement = [], 0.0
    for temperature in (1.0, 0.1, 0.01, 0.001):
        logits = answer({n: made(temperature)(a, all_alive(a))[0] for n, a in alphas.items()})
        gaps.append((logits - discrete).abs().max().item())
        agreement = (logits.argmax(1) == discrete.argmax(1)).double().mean().item()
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.3
    assert gaps[-1] < 1e-3
    assert agreement == 1.0


# -- 10: no preference without a reason


def search_among_equals(seeds: int, *, shuffled: bool) -> Tensor:
    """alphas (seeds, 3) of independent bilevel searches, one a row.

    Op o sees features of its own; the labels are told by those of op 1, unless they are shuffled.
    """
    torch.manual_seed(4)
    x = torch.randn(seeds, 256, 3, 4)
    labels = (x[:, :, 1].sum(2) > 0).long()
    if shuffled:
        labels = labels.gather(1, torch.rand(seeds, 256).argsort(1))
    weights = torch.zeros(seeds, 3, 4, 2, requires_grad=True)
    alphas = (1e-3 * torch.randn(seeds, 3)).requires_grad_()
    relaxation = made(1.0, 0.02, noisy_edges=0.25)
    w_optimizer, a_optimizer = torch.optim.SGD([weights], 0.5), torch.optim.Adam([alphas], 0.02)
    for step in range(60):
        relaxation.before_step(step / 60)
        for half, optimizer in ((slice(128, None), a_optimizer), (slice(128), w_optimizer)):
            gates, _ = relaxation(alphas, all_alive(alphas))
            logits = torch.einsum("so,sbof,sofc->scb", gates, x[:, half], weights)
            optimizer.zero_grad()
            (F.cross_entropy(logits, labels[:, half]) * seeds).backward()
            optimizer.step()
    return alphas.detach()


@pytest.mark.slow
def test_temperature_10_shuffled_labels_leave_no_preference():
    """60 searches, chance 1/3: wins have mean 20 and deviate by 3.65; 4 times that is 14.6."""
    found = search_among_equals(60, shuffled=True)
    assert found.abs().max() > 0.05  # alphas did move
    assert ((found.argmax(1).bincount(minlength=3) - 20).abs() < 14.6).all()
    centred = found - found.mean(1, keepdim=True)
    assert (centred.mean(0).abs() < 4 * centred.std(0) / 60**0.5).all()
    told = search_among_equals(60, shuffled=False)
    assert (told.argmax(1) == 1).all()  # the same search finds a reason where there is one


# -- contract and settings


@pytest.mark.parametrize("noisy_edges", [0.0, 0.25, 1.0])
def test_pruned_and_dead_get_zero_gates_and_zero_gradients(noisy_edges: float):
    alphas = torch.randn(200, 4, requires_grad=True)
    alive = torch.rand(200, 4) < 0.5
    alive[0] = False
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        gates, _ = made(1e-3, noisy_edges=noisy_edges)(alphas, alive)
        (gates * torch.randn(200, 4)).sum().backward()
    assert gates[~alive].eq(0).all()
    assert alphas.grad is not None
    assert alphas.grad[~alive].eq(0).all()
    assert alphas.grad.isfinite().all()
    torch.testing.assert_close(gates.sum(1), alive.any(1).float())


def test_architecture_is_read_at_a_temperature_of_its_own():
    """At 0.02 both edges have a gate of exactly 1; at 1 the second is the stronger one."""
    alphas = torch.tensor([[0.5, 0.0], [0.9, 0.0]])
    relaxation = made(0.02, noisy_edges=1.0)
    assert relaxation.eval()(alphas, all_alive(alphas))[0][:, 0].tolist() == [1.0, 1.0]
    gates, _ = relaxation.expected(alphas, all_alive(alphas))
    torch.testing.assert_close(gates[:, 0], torch.tensor([0.622459, 0.710950]))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"start": 0.0}, r"^start: expected a number of at least 0\.001"),
        (
            {"end": 1e-4},
            r"^end: expected a number of at least 0\.001 and at most 10\.0, found 0\.0001",
        ),
        ({"start": 11.0}, r"^start: expected a number of at least 0\.001"),
        ({"read_at": 0.0}, r"^read_at: expected a number of at least 0\.001"),
        ({"noisy_edges": 1.1}, r"^noisy_edges: expected a number of at least 0 and at most 1"),
        ({"least_noise": 0.0}, r"^least_noise: expected a number above 0"),
        ({"final_entropy": 1.0}, r"^final_entropy: expected a number above 0 and below 1 or null"),
    ],
)
def test_bad_settings_are_refused(changed: dict[str, float], said: str):
    with pytest.raises(ValueError, match=said):
        made(**{"start": 1.0, "end": 1.0} | changed)
