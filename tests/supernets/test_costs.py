"""Multiply-accumulates of candidates: the sheet goldnas.md, section 9, test 1."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.chains import chain
from search_spaces.goldnas import CANDIDATES, goldnas
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space
from supernets.costs import candidate_macs, check_shapes, macs, macs_of
from supernets.final_costs import final_costs
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture, Mixture, everything_active
from supernets.network import Network, supernet

CIFAR = dict(nodes=4, candidates=list(CANDIDATES), input_shape=(3, 32, 32), classes=10)


def counted(net: Network, mixture: Mixture) -> int:
    """Multiply-accumulates by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.randn(1, *net.space.input_shape), mixture)
    return counter.get_total_flops() // 2


def alive_mixture(space: Space, share: float) -> tuple[Mixture, dict[str, torch.Tensor]]:
    """A random part of the candidates runs."""
    alive = {
        name: torch.rand(len(cell.edges), cell.width) < share for name, cell in space.groups.items()
    }
    for name, cell in space.groups.items():
        for e, edge in enumerate(cell.edges):
            alive[name][e, len(edge.names) :] = False
    groups = {n: GroupMixture(t.float(), None, everything_active(t)) for n, t in alive.items()}
    return Mixture(groups), alive


@pytest.mark.slow
def test_goldnas_1_the_supernets_candidates_cost_613_45_million():
    with torch.device("meta"):
        net = supernet(goldnas(layers=14, channels=36, **CIFAR), MixedOp)
    costs = candidate_macs(net)
    total = sum(int(table.sum()) for table in costs.values())
    assert total / 1e6 == pytest.approx(613.45, abs=5e-3)
    everything, _ = alive_mixture(net.space, 2.0)
    whole = macs(net, everything)
    assert whole / 1e6 == pytest.approx(777.0, abs=0.05)
    assert (whole - total) / 1e6 == pytest.approx(163.57, abs=5e-3)
    per_stage = {
        round(value / 1e6, 3) for table in costs.values() for value in table.unique().tolist()
    }
    assert per_stage == {0.0, 3.318, 2.986, 2.820, 1.327}


@pytest.mark.slow
@pytest.mark.parametrize("mixed_op", [MixedOp, partial(PartialMixedOp, k=2)])
@pytest.mark.parametrize("shared", [False, True])
def test_goldnas_1_less_each_cut_op_is_what_an_independent_counter_finds(
    shared: bool, mixed_op, toy_darts: Space
):
    torch.manual_seed(0)
    space = toy_darts if shared else goldnas(layers=4, channels=4, **(CIFAR | dict(nodes=2)))
    net = supernet(space, mixed_op)
    costs = candidate_macs(net)
    everything, _ = alive_mixture(space, 2.0)
    fixed = counted(net, everything) - sum(int(table.sum()) for table in costs.values())
    for share in (0.9, 0.7):
        mixture, alive = alive_mixture(space, share)
        left = sum(int(costs[name][alive[name]].sum()) for name in costs)
        assert fixed + left == counted(net, mixture) == macs(net, mixture)


class Attention(nn.Module):
    """Over the pixels of a map, its products by any of torch's ways."""

    def __init__(self, channels: int, way: str):
        super().__init__()
        self.way, self.whole = way, nn.MultiheadAttention(channels, 1, batch_first=True)
        self.qkv = nn.Parameter(torch.zeros(3 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (B, H * W, C)
        if self.way == "module":
            return self.whole(tokens, tokens, tokens)[0]
        q, k, v = F.linear(tokens, self.qkv).chunk(3, -1)
        if self.way == "einsum":
            shares = torch.einsum("bnc,bmc->bnm", q, k).softmax(-1)
            return F.linear(torch.einsum("bnm,bmc->bnc", shares, v), self.qkv[: q.size(-1)])
        return F.scaled_dot_product_attention(q, k, v) @ self.qkv[: q.size(-1)]


@pytest.mark.parametrize("way", ["module", "einsum", "function"])
def test_a4_attention_counts_whatever_calls_it(way: str):
    """Four products of (N, C) by (C, C), two of (N, C) by (C, N), with N = 8 * 8 and C = 4."""
    net = Attention(4, way)
    assert macs_of(net, (torch.empty(1, 4, 8, 8, device="meta"),)) == 4 * 64 * 4**2 + 2 * 64**2 * 4


def test_a4_a_budget_knows_of_attention():
    """What `budget.macs` adds up: the fixed parts, and one candidate at 8 x 8 with 4 channels."""
    space = nasbench201(
        layers=5, nodes=3, channels=4, candidates=["skip_connect", "attention"], classes=3,
        input_shape=(3, 8, 8), operations={"attention": MapAttention},
    )  # fmt: skip
    with torch.device("meta"):
        net = supernet(space, MixedOp)
    (table,) = candidate_macs(net).values()
    sizes = [(8, 4), (4, 8), (2, 16)]  # side and channels of the three cells
    expected = sum(4 * n**2 * c**2 + 2 * n**4 * c for n, c in sizes)
    assert table[0].tolist() == [0, expected]
    (final,) = final_costs(space)["macs"].tables.values()
    assert final[0].tolist() == [0, expected]


class MapAttention(Attention):
    """As an operation of a space."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool):
        super().__init__(c_in, "function")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).transpose(1, 2).unflatten(2, x.shape[2:])


def test_counting_leaves_the_network_alone(toy_darts: Space):
    net = supernet(toy_darts, MixedOp)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    candidate_macs(net)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def chain_of(*candidates: str, widths: Sequence[float] = (1, 1.5)) -> Network:
    space = chain(
        layers=3, channels=4, widths=list(widths), candidates=list(candidates),
        input_shape=(3, 8, 8), classes=2,
    )  # fmt: skip
    with torch.device("meta"):
        return supernet(space, MixedOp)


def test_options_that_fit_every_row_pass():
    check_shapes(chain_of("sep_conv_3x3", "dil_conv_5x5"))
    check_shapes(chain_of("max_pool_3x3", "skip_connect", widths=[1, 1]))


@pytest.mark.parametrize(
    ("candidate", "made"),
    [
        ("skip_connect", r"\[1, 6, 4, 4\] of \[1, 4, 8, 8\], expected \[1, 6, 8, 8\]"),
        ("avg_pool_3x3", r"an error \(.*\) of \[1, 4, 8, 8\]"),
    ],
)
def test_an_option_of_another_shape_is_named(candidate: str, made: str):
    """The first block takes 4 channels to 6 without a stride: a skip halves the map, a pool keeps
    the channels, which the batch norm behind it does not take."""
    with pytest.raises(ValueError, match=f"'{candidate}' in row 0-1 of 'blocks' makes {made}"):
        check_shapes(chain_of("sep_conv_3x3", candidate, widths=[1.5, 1.5]))
