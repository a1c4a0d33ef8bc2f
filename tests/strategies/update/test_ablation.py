"""Sheet ddarts.md: the alphas of a cell learn by what the cell contributes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_every_config import composed, make
from torch import Tensor

from search_spaces.cells import Cell, Layer, complete_edges
from search_spaces.space import Space
from strategies.gradients import Batch
from strategies.strategy import Strategy
from strategies.update import ablation
from strategies.update.ablation import Ablation, contributions
from supernets.mixture import Mixture
from supernets.network import Network, supernet


def ready(space: Space, *overrides: str) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    strategy = make(composed("strategy=ddarts", *overrides).strategy, space=space)
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, torch.device("cpu"))
    return net, strategy


@pytest.fixture
def tiny(toy_darts: Space) -> Space:
    names = ["skip_connect", "sep_conv_3x3", "max_pool_3x3"]
    return toy_darts.resize(nodes=1, candidates=names, share_alphas=False)


def batch() -> Batch:
    return torch.randn(8, 3, 16, 16), torch.randint(10, (8,))


def alpha_gradients(net: Network, strategy: Strategy, val: Batch) -> dict[str, Tensor]:
    strategy.alpha_optimizer.zero_grad()
    strategy.update.alpha_gradients(strategy, net, val, val)
    return {name: alphas.grad.clone() for name, alphas in strategy.alphas.items()}


SCALES = {"00_normal": torch.tensor(1.7), "01_reduce": torch.tensor(0.3)}


def test_ddarts_1_the_gradient_of_a_cell_is_scaled_by_its_contribution_alone(
    tiny: Space, monkeypatch
):
    """What the ablation adds is not zero for the cells that it names, and zero for the other."""
    net, strategy = ready(tiny, "strategy/losses=[]", "strategy.alpha_init=1")
    scales = SCALES | {"02_reduce": torch.tensor(1.0)}
    val = batch()
    monkeypatch.setattr(Ablation, "scales", lambda self, contributed: scales)
    scaled = alpha_gradients(net, strategy, val)
    strategy.update = Ablation(0.0)
    plain = alpha_gradients(net, strategy, val)
    for name, scale in scales.items():
        assert plain[name].abs().max() > 1e-4
        torch.testing.assert_close(scaled[name], scale * plain[name], rtol=1e-4, atol=1e-7)


def test_the_zero_one_loss_keeps_its_gradient(tiny: Space, monkeypatch):
    net, strategy = ready(tiny, "strategy.alpha_init=1")
    (term,) = strategy.losses.values()
    term(net, batch(), torch.zeros(1), strategy.mixture()).backward()
    expected = {name: alphas.grad.clone() for name, alphas in strategy.alphas.items()}
    nothing = {name: torch.tensor(0.0) for name in strategy.alphas}
    monkeypatch.setattr(Ablation, "scales", lambda self, contributed: nothing)
    for name, found in alpha_gradients(net, strategy, batch()).items():
        torch.testing.assert_close(found, expected[name])


def test_the_factors_by_hand():
    """Contributions 1, 2 and 6 have the mean 3: -2/3, -1/3 and 1."""
    given = {name: torch.tensor(value) for name, value in zip("abc", (1.0, 2.0, 6.0), strict=True)}
    found = Ablation(0.6).scales(given)
    assert [float(one) for one in found.values()] == pytest.approx([0.6, 0.8, 1.6])


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_equal_contributions_scale_nothing_whatever_their_sign(value: float):
    found = Ablation(0.6).scales({name: torch.tensor(value) for name in "abc"})
    assert [float(one) for one in found.values()] == [1.0, 1.0, 1.0]


def test_factors_are_bounded_where_the_mean_is_near_zero():
    found = Ablation(0.7).scales({"a": torch.tensor(1.0), "b": torch.tensor(-1.0)})
    assert [float(one) for one in found.values()] == pytest.approx([1.7, 0.3])


def test_ddarts_2_a_step_leaves_no_gradient_on_weights_and_no_trace_in_the_next(tiny: Space):
    """Alphas after a second step are those of a strategy that starts there with no gradients."""
    net, strategy = ready(tiny)
    first, second = batch(), batch()
    strategy.update.alpha_gradients(strategy, net, first, first)
    assert all(weight.grad is None for weight in net.parameters())

    def gradient() -> dict[str, Tensor]:
        torch.manual_seed(1)
        return alpha_gradients(net, strategy, second)

    after = gradient()
    for alphas in strategy.alphas.values():
        alphas.grad = None
    for name, expected in gradient().items():
        assert torch.equal(after[name], expected)


def test_ablation_moves_no_statistics_and_draws_from_torchs_generator(tiny: Space, monkeypatch):
    net, strategy = ready(tiny)
    val = batch()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    strategy.update._alpha_pass(strategy, net, val, val)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    passes = []
    monkeypatch.setattr(
        ablation, "in_parts", lambda *args: passes.append(args) or torch.zeros(8, 10)
    )
    contributions(strategy, net, val)
    assert len(passes) == 1 + 3  # the whole network, and without each of three cells
    monkeypatch.undo()
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(torch.stack(list(contributions(strategy, net, val).values())))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


SKIP, CONV = "skip_connect", "sep_conv_3x3"


def stack(space: Space, *groups: str) -> Space:
    """A layer for each group, of a cell with one row of two candidates."""
    cell = Cell(1, 1, complete_edges(1, 1, [SKIP, CONV]), keep=1)
    layers = tuple(Layer("cell", group, 4, False) for group in groups)
    return replace(space, cells={"cell": cell}, layers=layers)


def test_ddarts_3_the_cell_that_carries_the_signal_contributes_most(toy_darts: Space):
    """Cells 0 and 2 pass their input on; cell 1 separates the classes with its candidates' gates.

    Its score without its gates is that with gates of one half, in the mean over the draws.
    """
    strategy = make(composed("strategy=ddarts").strategy, space=stack(toy_darts, "0", "1", "2"))
    with torch.no_grad():
        strategy.alphas["1"].copy_(torch.tensor([[10.0, -10.0]]))
    y = torch.tensor([0, 1] * 4)
    signs = F.one_hot(y, 2).float() * 2 - 1
    asked: list[Tensor] = []

    def net(x: Tensor, mixture: Mixture) -> Tensor:
        gates = mixture.groups["1"].gates
        asked.append(gates)
        return x * (gates[0, 0] - gates[0, 1])

    strategy.net = torch.nn.Identity()  # type: ignore[assignment]
    found = [contributions(strategy, net, (signs, y)) for _ in range(100)]
    mean = {name: float(torch.stack([one[name] for one in found]).mean()) for name in found[0]}
    assert mean["1"] > 0.3
    assert mean["0"] == mean["2"] == 0
    drawn = torch.stack([gates for gates in asked if gates.max() < 0.9999])
    assert drawn.mean((0, 1)).tolist() == pytest.approx([0.5, 0.5], abs=0.06)
    assert 0 <= drawn.min() < 0.05


def test_ddarts_4_alphas_of_zero_get_no_gradient_from_the_zero_one_loss(tiny: Space):
    """Its value is 0 there, and -1/4 in the mean over candidates at gates of 0 or 1."""
    net, strategy = ready(tiny)
    (term,) = strategy.losses.values()
    val, count = batch(), sum(alphas.numel() for alphas in strategy.alphas.values())
    nothing = val[0]
    loss = term(net, val, nothing, strategy.mixture())
    loss.backward()
    assert loss.item() == 0
    assert all(not alphas.grad.any() for alphas in strategy.alphas.values())
    with torch.no_grad():
        for alphas in strategy.alphas.values():
            alphas.fill_(50.0)
    assert term(net, val, nothing, strategy.mixture()).item() == pytest.approx(-0.092 * count / 4)


def test_ablation_with_weight_zero_is_first_order(tiny: Space):
    found = []
    for update in ("ablation", "first_order"):
        more = ["strategy.update.weight=0"] if update == "ablation" else []
        net, strategy = ready(tiny, f"strategy/update={update}", *more)
        val = batch()
        strategy.step(net, val, val, progress=0.0, move_alphas=True)
        found.append([p.detach() for p in strategy.arch_parameters()])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_the_strategy_gives_every_layer_a_choice_where_the_space_can():
    for space in ("darts", "s1", "s2", "s3", "s4"):
        assert composed("strategy=ddarts", f"space={space}").space.share_alphas is False
    assert composed("strategy=ddarts", "space.share_alphas=true").space.share_alphas
    assert composed("strategy=fairdarts").space.share_alphas


class TwoCells(torch.nn.Module):
    """The first cell helps by a skip connection and harms by a convolution, the second one the
    other way round: logits are s (g_0[skip] - g_0[conv] + g_1[conv] - g_1[skip]) x, s a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        first, second = ([*mixture.groups.values()] * 2)[:2]
        skip, conv = (first.gates - second.gates)[0]
        return self.scale * x * (skip - conv)


def searched_two_cells(space: Space, seed: int) -> Strategy:
    """A search of 30 steps by the shipped defaults."""
    torch.manual_seed(seed)
    strategy = make(composed("strategy=ddarts", "strategy.alpha_lr_scale=30").strategy, space=space)
    net: Any = TwoCells()
    strategy.setup(net, torch.device("cpu"))
    for _ in range(30):
        y = torch.randint(2, (16,))
        x = torch.stack([1.0 - 2 * y, 2.0 * y - 1], 1) + 0.3 * torch.randn(16, 2)
        strategy.step(net, (x, y), (x, y), progress=0.0, move_alphas=True)
    return strategy


@pytest.mark.slow
def test_ddarts_7_cells_of_their_own_find_each_its_operation(toy_darts: Space):
    for seed in range(10):
        found = searched_two_cells(stack(toy_darts, "0", "1"), seed).architecture().choices
        assert found == {"0": {"0-1": (SKIP,)}, "1": {"0-1": (CONV,)}}


def test_ddarts_7_a_shared_cell_finds_nothing(toy_darts: Space):
    """What one layer gains the other one loses: the alphas never move."""
    strategy = searched_two_cells(stack(toy_darts, "0", "0"), 0)
    assert not strategy.alphas["0"].any()
