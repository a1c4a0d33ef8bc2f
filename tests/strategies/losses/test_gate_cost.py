"""R and lambda: known answers of the sheet goldnas.md, section 9, tests 1, 2, 3 and 5."""

import math
from typing import Any

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor

from search_spaces.cells import Cell, complete_edges
from search_spaces.goldnas import CANDIDATES, goldnas
from search_spaces.space import Space
from strategies.losses.gate_cost import GateCost, resource
from strategies.losses.pressure import Pressure
from strategies.shares import same_target
from strategies.strategy import Strategy
from supernets.costs import candidate_macs
from supernets.mixed_op import MixedOp
from supernets.network import Network, supernet

PAIR = list(CANDIDATES)
NODE = Cell(2, 1, complete_edges(2, 1, PAIR), keep=2)  # one node, 4 candidates
SAME = same_target(NODE).double()
SETTINGS = dict(
    start=1e-5, factor=2.0, period=0.01, pace=1.0, ceiling=None, r=1.0, mu=1.0, unit=None
)


def R(gates: Tensor, prices: Tensor | float = 1.0, alive: Tensor | None = None) -> Tensor:  # noqa: N802
    alive = torch.ones_like(gates, dtype=torch.bool) if alive is None else alive
    prices = torch.as_tensor(prices, dtype=gates.dtype).expand_as(gates)
    return resource(gates, alive, prices, SAME)


def test_goldnas_2_equal_gates_cost_n_ln_2():
    assert float(R(torch.full((2, 2), 0.37, dtype=torch.double))) == pytest.approx(2.7726, abs=5e-5)
    assert 4 * math.log(2) == pytest.approx(2.7726, abs=5e-5)


def test_goldnas_2_one_that_dominates_costs_about_ln_of_1_plus_n():
    gates = torch.tensor([[1.0, 1e-9], [1e-9, 1e-9]], dtype=torch.double)
    assert float(R(gates)) == pytest.approx(math.log(5), abs=1e-6)


def test_goldnas_2_scale_does_not_matter():
    gates = torch.rand(2, 2, dtype=torch.double)
    for scale in (0.01, 3.0):
        torch.testing.assert_close(R(scale * gates), R(gates), rtol=1e-12, atol=0)


def test_goldnas_2_euler_sum_is_0():
    gates = torch.rand(2, 2, dtype=torch.double, requires_grad=True)
    [gradient] = torch.autograd.grad(R(gates, torch.rand(2, 2)), gates)
    assert abs(float((gates.detach() * gradient).sum())) < 1e-12


def test_goldnas_2_descent_makes_the_strong_stronger_and_the_weak_weaker():
    gates = torch.tensor([[0.9, 0.2], [0.4, 0.5]], dtype=torch.double, requires_grad=True)
    [gradient] = torch.autograd.grad(R(gates), gates)
    assert gradient[0, 1] > 0 > gradient[0, 0]
    assert gradient[0, 1] == gradient.max()
    assert gradient[0, 0] == gradient.min()


def test_goldnas_2_pruned_gates_are_no_part_of_it():
    gates = torch.tensor([[0.9, 0.2], [0.0, 0.0]], dtype=torch.double)
    alive = torch.tensor([[True, True], [False, False]])
    expected = math.log(1 + 2 * 0.9 / 1.1) + math.log(1 + 2 * 0.2 / 1.1)
    assert float(R(gates, alive=alive)) == pytest.approx(expected, abs=1e-12)


def test_goldnas_2_a_lone_candidate_is_never_shrunk():
    gates = torch.tensor([[0.3, 0.0], [0.0, 0.0]], requires_grad=True)
    alive = torch.tensor([[True, False], [False, False]])
    cost = resource(gates, alive, torch.ones(2, 2), SAME.float())
    [gradient] = torch.autograd.grad(cost, gates)
    assert float(cost.detach()) == pytest.approx(math.log(2))
    assert not gradient[0, 0]


def test_goldnas_2_nodes_do_not_mix():
    cell = Cell(2, 2, complete_edges(2, 2, PAIR), keep=2)
    gates, alive = torch.rand(5, 2), torch.ones(5, 2, dtype=torch.bool)
    whole = resource(gates, alive, torch.ones(5, 2), same_target(cell))
    parts = [
        sum(math.log1p(2 * len(rows) * w / gates[rows].sum()) for w in gates[rows].flatten())
        for rows in ([0, 1], [2, 3, 4])
    ]
    assert float(whole) == pytest.approx(sum(parts), rel=1e-6)


def pressure() -> Pressure:
    """That of the public code, if the search has 100 epochs."""
    found = Pressure(start=1e-5, factor=2.0, period=0.01, pace=1.0)
    found.setup(392, torch.device("cpu"))
    return found


def test_goldnas_3_lambda_without_pruning():
    found, trace = pressure(), []
    for epoch in range(1, 7):
        found.epoch_end(392, epoch / 100)
        trace.append(float(found.strength))
    assert trace == pytest.approx([2e-5, 6e-5, 1.4e-4, 3.0e-4, 6.2e-4, 1.26e-3], rel=1e-5)


def test_goldnas_3_a_fair_number_of_cuts_halves_lambda_and_resets_its_step():
    found = pressure()
    for epoch in range(1, 7):
        found.epoch_end(392, epoch / 100)
    found.epoch_end(389, 0.07)  # 3 of 392: too few
    assert float(found.strength) == pytest.approx(2.54e-3, rel=1e-5)
    found.epoch_end(385, 0.08)  # 4
    assert float(found.strength) == pytest.approx(1.27e-3, rel=1e-5)
    assert found.delta == 1e-5
    found.epoch_end(385, 0.09)
    assert float(found.strength) == pytest.approx(1.27e-3 + 2e-5, rel=1e-5)


def test_goldnas_3_an_epoch_twice_as_long_counts_twice():
    """In 50 epochs c is 4 and a fair number 8."""
    found = pressure()
    found.epoch_end(392, 0.02)
    assert float(found.strength) == pytest.approx(4e-5, rel=1e-5)
    found.epoch_end(385, 0.04)
    assert float(found.strength) == pytest.approx(2e-4, rel=1e-5)
    found.epoch_end(377, 0.06)
    assert float(found.strength) == pytest.approx(5e-5, rel=1e-5)


def test_goldnas_3_lambda_comes_back_from_a_checkpoint():
    found, other = pressure(), pressure()
    for epoch in range(1, 4):
        found.epoch_end(392 - epoch, epoch / 100)
    other.load_state_dict(found.state_dict())
    for each in (found, other):
        each.epoch_end(380, 0.04)
        each.epoch_end(380, 0.05)
    assert other.state_dict() == found.state_dict()


def ready(space: Space, **changes: Any) -> tuple[GateCost, Strategy, Network]:
    """A term with these settings, for the supernet of the space."""
    strategy = make(composed("strategy=goldnas").strategy, space=space)
    net = supernet(space, MixedOp)
    strategy.setup(net, torch.device("cpu"))
    term = GateCost(**(SETTINGS | changes))
    term.setup(net, strategy)
    return term, strategy, net


def value(term: GateCost, strategy: Strategy) -> float:
    """R of the present gates."""
    return term.cost(strategy.mixture()).item()


def priced(term: GateCost, strategy: Strategy) -> Tensor:
    """The term at lambda = 1, on logits that know nothing: a cross-entropy of ln 3."""
    nothing: Any = None
    batch = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])
    term.pressure.strength.fill_(1.0)
    found: Tensor = term(nothing, batch, torch.zeros(2, 3), strategy.mixture())
    return found


def test_b1_the_price_is_in_proportion_to_the_loss_whatever_the_space():
    """Its value is lambda CE; its gradient that of lambda CE log R: a factor of R is gone."""
    found = []
    for r in (1.0, 100.0):
        term, strategy, _ = ready(toy(), r=r, mu=0.0)
        strategy.alphas["00_normal"].data[0, 0] = 1.0
        assert priced(term, strategy).item() == pytest.approx(math.log(3), rel=1e-5)
        (gradient,) = torch.autograd.grad(priced(term, strategy), strategy.alphas["00_normal"])
        found.append(gradient)
    torch.testing.assert_close(found[0], found[1])
    # the node of 4 candidates: gates s(1), 1/2, 1/2, 1/2; R of it and its derivative by hand
    w, rest = 1 / (1 + math.exp(-1)), 1.5
    total = w + rest
    inner = 4 / total  # of 1 / mean gate
    cost = math.log1p(w * inner) + 3 * math.log1p(0.5 * inner)
    slope = 4 * rest / total**2 / (1 + w * inner) - 3 * 4 * 0.5 / total**2 / (1 + 0.5 * inner)
    whole = 26 * math.log(2) + cost
    expected = math.log(3) * slope * w * (1 - w) / whole
    assert found[0][0, 0].item() == pytest.approx(expected, rel=1e-4)


def test_goldnas_1_prices_are_r_and_mu_times_macs_on_every_layer(toy_darts: Space):
    space = toy_darts.resize(candidates=["none", *PAIR], classes=3)
    for group, layers in (("normal", 1), ("reduce", 2)):
        assert [layer.group for layer in space.layers].count(group) == layers
    term, _, net = ready(space, r=2.0, mu=3.0, unit=1e6)
    macs = candidate_macs(net)
    for group, layers in (("normal", 1), ("reduce", 2)):
        expected = 2.0 * layers + 3.0 * 1e-6 * macs[group]
        torch.testing.assert_close(term.prices[group], expected.float())


def test_goldnas_1_the_unit_may_be_the_mean_candidate():
    """All candidates together then cost r + mu each, at any size of the space."""
    for channels in (4, 8):
        term, _, _ = ready(toy(channels), r=1.0, mu=0.5, unit=None)
        total = sum(float(table.sum()) for table in term.prices.values())
        assert total == pytest.approx(1.5 * 30, rel=1e-5)


def toy(channels: int = 4) -> Space:
    return goldnas(
        layers=3, nodes=2, channels=channels, candidates=PAIR, input_shape=(3, 8, 8), classes=3
    )


def test_goldnas_2_the_term_of_a_fresh_supernet():
    """All gates 1/2: n ln 2 per node, here 4 and 6 candidates in each of 3 cells."""
    term, strategy, _ = ready(toy(), r=1.0, mu=0.0)
    assert value(term, strategy) == pytest.approx(30 * math.log(2), rel=1e-6)


def test_none_neither_costs_nor_counts(toy_darts: Space):
    values = []
    for names in (["none", *PAIR], PAIR):
        term, strategy, _ = ready(toy_darts.resize(candidates=names, classes=3), r=1.0, mu=1.0)
        values.append(value(term, strategy))
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.slow
def test_goldnas_5_last_ops_survive_any_lambda():
    """lambda -> infinity, and pruning as strong as it can be: one op a node stays."""
    torch.manual_seed(0)
    space = toy()
    strong = [
        "strategy.pruning.maximum=0.9", "strategy.pruning.most=99", "strategy.pruning.gradual=1",
        "strategy.losses.gate_cost.ceiling=null", "strategy.warmup=0",
    ]  # fmt: skip
    strategy = make(composed("strategy=goldnas", *strong).strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    batch = torch.randn(4, 3, 8, 8), torch.randint(3, (4,))
    for epoch in range(1, 30):
        strategy.losses["gate_cost"].pressure.strength.fill_(1e12)
        for _ in range(2):
            strategy.step(net, batch, None, progress=epoch / 100, move_alphas=True)
        done = strategy.epoch_end(net, None, epoch / 100)
        assert all(torch.isfinite(p).all() for p in strategy.arch_parameters())
        if done:
            break
    assert sum(int(table.sum()) for table in strategy.alive.values()) < 30, "nothing was cut"
    for name, cell in space.groups.items():
        for node in cell.targets:
            assert strategy.alive[name][cell.into(node)].sum() >= 1
    strategy.architecture()


def test_lambda_stands_still_in_a_warmup_and_keeps_below_its_ceiling():
    term, strategy, net = ready(toy(), ceiling=8.0, r=1.0, mu=0.0)
    strategy.warmup = 0.5
    for epoch, epochs in ((0, 2), (1, 3)):  # 1.5 of 3 epochs are 2, and alphas still in the second
        strategy.epoch_start(epoch, epochs)
        term.epoch_end(net, strategy, None, (epoch + 1) / epochs)
        assert float(term.pressure.strength) == 0
    strategy.epoch_start(1, 2)
    term.pressure.progress = 0.5
    term.pressure.strength.fill_(7.0)
    term.epoch_end(net, strategy, None, 0.51)
    assert 7 < float(term.pressure.strength) < 8
    term.pressure.strength.fill_(1e6)
    term.epoch_end(net, strategy, None, 1.0)
    assert float(term.pressure.strength) == 8.0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (dict(mu=-1.0), "mu"),
        (dict(r=0.0, mu=0.0), "r, mu"),
        (dict(factor=1.0), "factor"),
        (dict(period=0.0), "period"),
        (dict(ceiling=0.0), "ceiling"),
        (dict(unit=0.0), "unit"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(wrong: dict, named: str):
    with pytest.raises(ValueError, match=rf"^{named}: expected"):
        GateCost(**(SETTINGS | wrong))
