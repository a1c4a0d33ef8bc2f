"""ROME: edges and operations are drawn, gradients accumulated; numbers are those of the sheet."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_every_config import composed, make

from search_spaces.cells import Cell, Edge, complete_edges
from search_spaces.choice import Option
from search_spaces.space import Space
from strategies.discretisation.strongest import rows_first
from strategies.relaxation.gumbel import Gumbel
from strategies.strategy import Strategy
from strategies.topology.gumbel_sets import GumbelSets
from strategies.topology.gumbel_top import GumbelTop
from strategies.update.accumulated import Accumulated
from strategies.update.first_order import FirstOrder
from supernets.frozen import frozen_statistics
from supernets.mixture import Mixture
from supernets.network import CellModule, Network, supernet

CPU = torch.device("cpu")
CELL = Cell(2, 4, complete_edges(2, 4, ["skip_connect"]), keep=2)
ALL = torch.ones(14, dtype=torch.bool)
SKIP = (Option.of("skip_connect"),)
CHANCES = torch.tensor([0.5, 0.3, 0.15, 0.05])
INCLUDED = torch.tensor([0.8288, 0.6687, 0.3722, 0.1303])
PAIRS = {(0, 1): 0.51429, (0, 2): 0.23824, (0, 3): 0.07632,
         (1, 2): 0.11723, (1, 3): 0.03722, (2, 3): 0.01672}  # fmt: skip


def ready(space: Space, *overrides: str) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    strategy = make(composed(*overrides).strategy, space=space)
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, CPU)
    return net, strategy


@pytest.fixture
def tiny(toy_darts: Space) -> Space:
    return toy_darts.resize(
        channels=4, candidates=["none", "skip_connect", "sep_conv_3x3"], input_shape=(3, 8, 8)
    )


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, 3, 8, 8), torch.randint(10, (8,))


# -- 1: what is drawn


def drawn(topology: GumbelTop, beta: torch.Tensor, passes: int) -> torch.Tensor:
    """(draws, 4) bool: which of four edges run, at ten nodes in each pass."""
    edges = tuple(Edge(s, 4 + t, SKIP) for t in range(10) for s in range(4))
    cell = Cell(4, 10, edges, keep=2)
    alive, betas = torch.ones(40, dtype=torch.bool), beta.repeat(10)
    runs = [topology(betas, cell, alive)[1] for _ in range(passes)]
    return torch.tensor(runs).view(-1, 4)


def agrees(found: torch.Tensor, expected: torch.Tensor, draws: int) -> None:
    spread = (expected * (1 - expected) / draws).sqrt()
    assert bool(((found - expected).abs() <= 3 * spread + 5e-5).all()), found


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1])
@pytest.mark.parametrize("passes", [200, pytest.param(10000, marks=pytest.mark.slow)])
def test_rome_1_edges_are_drawn_without_replacement(temperature: float, passes: int):
    runs = drawn(GumbelTop(temperature, temperature), CHANCES.log(), passes)
    assert bool((runs.sum(1) == 2).all())
    agrees(runs.float().mean(0), INCLUDED, len(runs))
    pairs = torch.stack([(runs[:, i] & runs[:, k]).float().mean() for i, k in PAIRS])
    agrees(pairs, torch.tensor(list(PAIRS.values())), len(runs))


def test_rome_1_pairs_are_drawn_by_their_own_logits():
    chances = torch.tensor(list(PAIRS.values()))
    runs = drawn(GumbelSets(1.0, 1.0), chances.log(), 200)
    found = torch.stack([(runs[:, i] & runs[:, k]).float().mean() for i, k in PAIRS])
    agrees(found, chances, len(runs))


def test_rome_1_a_cell_runs_eight_operations_and_trains_no_other(toy_darts: Space):
    net, strategy = ready(
        toy_darts.resize(nodes=4, channels=4, input_shape=(3, 8, 8)), "strategy=rome"
    )
    ran: set[int] = set()
    calls = []

    def note(op: torch.nn.Module, *_: object) -> None:
        ran.add(id(op))
        calls.append(op)

    ops = [op for place in net.places() for op in place.module.ops]
    for op in ops:
        op.register_forward_hook(note)
    loss, _ = strategy.loss(net, (torch.randn(2, 3, 8, 8), torch.tensor([0, 1])))
    loss.backward(inputs=strategy.weights)
    assert len(calls) == 8 * sum(isinstance(module, CellModule) for module in net.modules())
    for op in ops:
        trained = [p.grad is not None for p in op.parameters()]
        assert all(trained) if id(op) in ran else not any(trained)


# -- 2 and 3: accumulation


@pytest.mark.slow
def test_rome_2_variance_of_the_alpha_gradient_falls_as_one_over_k(tiny: Space):
    net, strategy = ready(tiny.resize(nodes=2), "strategy=rome", "strategy.relaxation.start=1")
    strategy.topology.temperature.fill_(1.0)
    images, means, variances = batch(), [], []
    for samples in (1, 4, 16):
        strategy.update.samples, found = samples, []
        for _ in range(120):
            strategy.alpha_optimizer.zero_grad()
            with frozen_statistics(net):
                strategy.update.alpha_gradients(strategy, net, images, images)
            found.append(torch.cat([p.grad.flatten() for p in strategy.arch_parameters()]))
        table = torch.stack(found)
        means.append(table.mean(0))
        variances.append(float(table.var(0).sum()))
    assert variances[1] / variances[0] == pytest.approx(1 / 4, rel=0.3)
    assert variances[2] / variances[0] == pytest.approx(1 / 16, rel=0.3)
    spread = math.sqrt(variances[0] / 120)
    assert float((means[0] - means[2]).norm()) < 2 * spread


def gradients(strategy: Strategy, net: Network, samples: int) -> list[list[torch.Tensor]]:
    strategy.update.samples, found = samples, []
    images = torch.ones(4, 3, 8, 8).cumsum(3), torch.arange(4)
    for wanted in (strategy.arch_parameters(), strategy.weights):
        for parameter in wanted:
            parameter.grad = None
        with frozen_statistics(net):
            if wanted is strategy.weights:
                strategy.update.weight_gradients(strategy, net, images)
            else:
                strategy.update.alpha_gradients(strategy, net, images, images)
        found.append([p.grad for p in wanted if p.grad is not None])
    return found


def test_rome_3_alpha_gradients_are_averaged_and_weight_gradients_summed(tiny: Space):
    net, strategy = ready(tiny, "strategy=darts", "strategy/update=accumulated")
    one, three = gradients(strategy, net, 1), gradients(strategy, net, 3)
    torch.testing.assert_close(three[0], one[0])
    torch.testing.assert_close(three[1], [3 * gradient for gradient in one[1]])


@pytest.mark.slow
def test_rome_3_a_summed_step_is_a_mean_step_of_k_times_the_rate(tiny: Space):
    plain = ["strategy.clip=null", "strategy.weight_optimizer.momentum=0",
             "strategy.weight_optimizer.weight_decay=0", "strategy/update=accumulated"]  # fmt: skip
    moved = []
    for samples, rate in ((3, 0.01), (1, 0.03)):
        net, strategy = ready(
            tiny, "strategy=darts", *plain, f"strategy.weight_optimizer.lr={rate}",
            f"strategy.update.samples={samples}",
        )  # fmt: skip
        images = torch.ones(4, 3, 8, 8).cumsum(3), torch.arange(4)
        strategy.step(net, images, images, progress=0.0, move_alphas=False)
        moved.append(list(strategy.weights))
    torch.testing.assert_close(*moved)


def test_rome_3_alphas_move_before_weights(tiny: Space, monkeypatch):
    net, strategy = ready(tiny, "strategy=rome", "strategy.update.samples=2")
    roles = []
    loss = Strategy.loss

    def noted(self, net, batch, role="train", offsets=None):
        roles.append(role)
        return loss(self, net, batch, role, offsets)

    monkeypatch.setattr(Strategy, "loss", noted)
    strategy.step(net, batch(), batch(), progress=0.0, move_alphas=True)
    assert roles == ["val", "val", "train", "train"]


# -- 4: a node whose answer is known


STEPS = 60


def learned(topology: GumbelTop, seed: int) -> dict[str, tuple[str, ...]]:
    """The target is x1 + x3 of four inputs; an option returns its input, the other nothing."""
    torch.manual_seed(seed)
    options = Option("skip", "identity"), Option("still", "conv")
    cell = Cell(4, 1, tuple(Edge(s, 4, options) for s in range(4)), keep=2)
    alphas = torch.zeros(4, 2, requires_grad=True)
    beta = torch.zeros(topology.size(cell), requires_grad=True)
    alive, relaxation = torch.ones(4, 2, dtype=torch.bool), Gumbel(10.0, 0.1)
    optimizer = torch.optim.Adam([alphas, beta], lr=0.1)
    for step in range(STEPS):
        for part in (topology, relaxation):
            part.before_step(step / STEPS)
        optimizer.zero_grad()
        x = torch.randn(16, 4)
        for _ in range(3):
            gates, _ = relaxation(alphas, alive)
            factors, _ = topology(beta, cell, alive.all(1))
            error = x @ (factors * gates[:, 0]) - x[:, 1] - x[:, 3]
            (error.square().mean() / 3).backward()
        optimizer.step()
    expected, _ = relaxation.expected(alphas.detach(), alive)
    return rows_first(cell, expected, topology.expected(beta.detach(), cell, alive.all(1)), alive)


@pytest.mark.parametrize("version", [GumbelTop, GumbelSets])
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2, 3))])
def test_rome_4_the_two_edges_of_the_target_are_found(version: type[GumbelTop], seed: int):
    assert learned(version(10.0, 0.1), seed) == {"1-4": ("skip",), "3-4": ("skip",)}


# -- 5: the searched graph is the derived one


def mismatch(space: Space, *overrides: str) -> float:
    net, strategy = ready(space.resize(nodes=3), *overrides)
    for parameter in strategy.arch_parameters():
        torch.nn.init.normal_(parameter)
    (x, y), net = batch(), net.eval()
    derived = Mixture.of(strategy.architecture(), strategy.space, CPU)
    with torch.no_grad():
        losses = [F.cross_entropy(net(x, m), y) for m in (strategy.mixture(noise=False), derived)]
    return abs(float(losses[0] - losses[1]))


@pytest.mark.parametrize("choice", ["gumbel_top", "gumbel_sets"])
def test_rome_5_the_likeliest_search_graph_is_the_derived_network(tiny: Space, choice: str):
    assert mismatch(tiny, "strategy=rome", f"strategy/topology={choice}") == 0


@pytest.mark.slow
def test_rome_5_that_of_gdas_and_of_darts_is_not(tiny: Space):
    assert mismatch(tiny, "strategy=gdas") > 1e-4
    assert mismatch(tiny, "strategy=darts") > 1e-4


# -- 6: where there is nothing to choose


@pytest.mark.parametrize(("version", "betas"), [(GumbelTop, 2), (GumbelSets, 1)])
def test_rome_6_two_edges_into_a_node_both_run_and_have_no_gradient(
    version: type[GumbelTop], betas: int
):
    topology = version(0.5, 0.5)
    beta = torch.randn(topology.size(CELL), requires_grad=True)
    factors, runs = topology(beta, CELL, ALL)
    (factors * torch.arange(1.0, 15.0)).sum().backward()
    assert factors[:2].tolist() == [1.0, 1.0]
    assert runs is not None
    assert runs[:2] == [True, True]
    assert beta.grad[:betas].tolist() == [0.0] * betas
    assert bool((beta.grad[betas:] != 0).any())


@pytest.mark.parametrize("choice", ["gumbel_top", "gumbel_sets"])
def test_rome_6_their_betas_never_move(tiny: Space, choice: str):
    net, strategy = ready(tiny, "strategy=rome", f"strategy/topology={choice}",
                          "strategy.update.samples=1")  # fmt: skip
    still = 2 if choice == "gumbel_top" else 1
    for i in range(3):
        strategy.step(net, batch(), batch(), progress=i / 3, move_alphas=True)
    for beta in strategy.betas.values():
        assert beta[:still].tolist() == [0.0] * still
        assert bool((beta[still:] != 0).all())


# -- what is not in the sheet


def test_rome_sizes_of_both_versions():
    assert (GumbelTop(1.0, 1.0).size(CELL), GumbelSets(1.0, 1.0).size(CELL)) == (14, 20)


@pytest.mark.parametrize("version", [GumbelTop, GumbelSets])
def test_rome_dead_edges_are_not_drawn(version: type[GumbelTop]):
    alive = ALL.clone()
    alive[[0, 1, 2, 5, 6, 7]] = False  # leaves 0, 2, 1 and 5 edges
    topology = version(1.0, 1.0)
    beta = torch.randn(topology.size(CELL), requires_grad=True)
    factors, runs = topology(beta, CELL, alive)
    factors.sum().backward()
    assert runs is not None
    assert not any(on for on, lives in zip(runs, alive.tolist(), strict=True) if not lives)
    assert [sum(runs[part]) for part in (slice(0, 2), slice(2, 5), slice(5, 9), slice(9, 14))] == [
        0, 2, 1, 2,
    ]  # fmt: skip
    assert factors.tolist() == [float(on) for on in runs]
    assert bool(beta.grad.isfinite().all())


def test_rome_1_the_edges_are_read_from_betas_alone():
    """The first edge has the surest operation and the smallest beta."""
    cell = Cell(3, 1, complete_edges(3, 1, ["skip_connect", "sep_conv_3x3"]), keep=2)
    gates = torch.tensor([[0.01, 0.99], [0.6, 0.4], [0.45, 0.55]])
    alive = torch.ones(3, 2, dtype=torch.bool)
    factors = torch.tensor([0.3, 0.36, 0.34])
    kept = {"1-3": ("skip_connect",), "2-3": ("sep_conv_3x3",)}
    assert rows_first(cell, gates, factors, alive) == kept


def test_rome_the_best_pair_need_not_have_the_likeliest_edges():
    cell = Cell(4, 1, complete_edges(4, 1, ["skip_connect"]), keep=2)
    chances = torch.tensor([0.22, 0.2, 0.2, 0.02, 0.02, 0.34])  # the pairs in order; last: 2 and 3
    factors = GumbelSets(1.0, 1.0).expected(chances.log(), cell, torch.ones(4, dtype=torch.bool))
    assert factors.tolist() == pytest.approx([0.22, 0.22, 0.34, 0.34])


@pytest.mark.parametrize("choice", ["gumbel_top", "gumbel_sets"])
def test_rome_where_every_edge_is_kept_only_operations_are_drawn(
    choice: str, toy_nasbench201: Space
):
    small = toy_nasbench201.resize(channels=4, nodes=2)
    net, strategy = ready(small, "strategy=rome", f"strategy/topology={choice}")
    (group,) = strategy.mixture().groups.values()
    assert [len(row) for row in group.active] == [1, 1, 1]
    images = torch.randn(4, 3, 8, 8), torch.arange(4)
    strategy.step(net, images, images, progress=0.0, move_alphas=True)
    assert all(bool(alpha.any()) for alpha in strategy.alphas.values())
    assert not any(bool(beta.any()) for beta in strategy.betas.values())


def test_rome_3_alphas_get_the_mean_of_the_passes_and_weights_the_sum(monkeypatch):
    """Three passes whose gradients are 1, 2 and 3."""
    alpha, weight = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    passes = iter([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])

    def added(parameter: torch.nn.Parameter) -> float:
        number = next(passes)
        before = 0 if parameter.grad is None else parameter.grad
        parameter.grad = before + torch.tensor([number])
        return number

    monkeypatch.setattr(
        FirstOrder, "alpha_gradients", lambda *_: torch.tensor(added(alpha)), raising=True
    )
    monkeypatch.setattr(
        FirstOrder, "weight_gradients", lambda *_: {"train_loss": torch.tensor(added(weight))}
    )
    update = Accumulated(3)
    strategy = SimpleNamespace(arch_parameters=lambda: [alpha, torch.nn.Parameter(torch.zeros(1))])
    assert float(update.alpha_gradients(strategy, None, None, None)) == 2
    assert float(alpha.grad) == 2
    assert float(update.weight_gradients(strategy, None, None)["train_loss"]) == 2
    assert float(weight.grad) == 6
