"""Thresholds of Single-Path NAS against gates, decisions and gradients by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planted_lags import OPTIONS, one_block
from test_every_config import composed, make
from torch import Tensor

from strategies.relaxation.threshold import indicator
from strategies.strategy import Strategy
from supernets.network import Network, supernet
from supernets.super_kernel import SuperKernelOp

CPU = torch.device("cpu")
FAR = 1e6


def ready(*overrides: str, options=tuple(OPTIONS)) -> tuple[Network, Strategy, SuperKernelOp]:
    config = composed("strategy=singlepath", *overrides).strategy
    strategy = make(config, space=one_block(options))
    net = supernet(strategy.space, strategy.mixed_op).train()
    strategy.setup(net, CPU)
    return net, strategy, strategy.relaxation.rows[0]


def threshold(strategy: Strategy, option: str, value: float) -> None:
    (row,) = strategy.space.choices["blocks"].rows
    strategy.alphas["blocks"].data[0, row.names.index(option)] = value


def found(strategy: Strategy) -> str:
    return strategy.architecture().choices["blocks"]["0-1"][0]


def test_singlepath_1_the_ring_is_open_above_its_threshold():
    _, strategy, op = ready()
    for half in (op.first, op.second):
        half.depthwise.weight.data *= 1 / op.ring_norm().detach()
    threshold(strategy, "mbconv_5x5_e3", 0.5)
    assert found(strategy) == "mbconv_5x5_e6"
    threshold(strategy, "mbconv_5x5_e3", 1.5)
    assert found(strategy) == "mbconv_3x3_e6"


def test_singlepath_1_at_the_start_the_widest_option_runs():
    _, strategy, _ = ready()
    assert strategy.gates()["blocks"].tolist() == [[0, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("block", "wide", "ring", "option"),
    [
        (1, 0, 0, "mbconv_3x3_e3"), (1, 1, 0, "mbconv_3x3_e6"), (1, 0, 1, "mbconv_5x5_e3"),
        (1, 1, 1, "mbconv_5x5_e6"), (0, 0, 0, "skip_connect"), (0, 1, 0, "skip_connect"),
        (0, 0, 1, "skip_connect"), (0, 1, 1, "skip_connect"),
    ],
)  # fmt: skip
def test_singlepath_1_every_triple_of_gates_is_an_option(block: int, wide: int, ring: int, option):
    _, strategy, _ = ready()
    for name, on in (("3x3_e3", block), ("3x3_e6", wide), ("5x5_e3", ring)):
        threshold(strategy, f"mbconv_{name}", -1 if on else FAR)
    assert found(strategy) == option
    mixture = strategy.mixture()
    assert mixture.groups["blocks"].gates[0].detach().tolist() == [
        float(name == option) for name in OPTIONS
    ]


def test_singlepath_1_a_row_without_a_skip_never_closes():
    _, strategy, _ = ready(options=tuple(OPTIONS[1:]))
    strategy.alphas["blocks"].data.fill_(FAR)
    assert found(strategy) == "mbconv_3x3_e3"


@pytest.mark.parametrize("x", [-2.0, -0.1, 0.3, 4.0])
def test_singlepath_3_the_gradient_is_that_of_the_sigmoid(x: float):
    t = torch.tensor(0.5, dtype=torch.double, requires_grad=True)
    norm = x + 0.5
    gate = indicator(norm - t)
    assert gate.item() == float(x > 0)
    (slope,) = torch.autograd.grad(gate, t)
    around = torch.tensor([x - 1e-4, x + 1e-4], dtype=torch.double).sigmoid()  # t + h, t - h
    assert slope.item() == pytest.approx(float(around[0] - around[1]) / 2e-4, rel=1e-6)
    s = 1 / (1 + 2.718281828459045**-x)
    assert slope.item() == pytest.approx(-s * (1 - s))


def test_singlepath_3_a_price_raises_the_thresholds_of_what_is_open():
    _, strategy, _ = ready()
    latency = strategy.losses["latency"]
    latency.expected(strategy.mixture()).backward()
    slopes = dict(zip(OPTIONS, strategy.alphas["blocks"].grad[0].tolist(), strict=True))
    assert all(slopes[f"mbconv_{part}"] < 0 for part in ("3x3_e3", "3x3_e6", "5x5_e3"))
    assert slopes["mbconv_5x5_e6"] == slopes["skip_connect"] == 0


def test_the_price_of_a_gate_lowers_the_norms_of_its_weights():
    _, strategy, op = ready()
    strategy.losses["latency"].expected(strategy.mixture()).backward()
    weight = op.second.depthwise.weight
    assert (weight.grad * weight.detach()).sum() > 0


def test_singlepath_gates_are_dropped_in_the_warm_up_alone():
    _, strategy, _ = ready()

    def drawn(epoch: int) -> Tensor:
        strategy.epoch_start(epoch, 4)
        return torch.stack([strategy.mixture().groups["blocks"].gates[0] for _ in range(200)])

    before, after = drawn(0), drawn(1)
    assert torch.equal(after.unique(dim=0), torch.eye(5)[4:])
    assert len(before.unique(dim=0)) == 5
    assert torch.equal(before.sort(1).values, torch.eye(5)[4:].expand(200, 5))
    shares = [before[:, 0], before[:, [1, 3]].sum(1), before[:, [1, 2]].sum(1)]
    wanted = [0.4, 0.6 * 0.4, 0.6 * 0.4]  # no block; a block without its second half, its ring
    for share, mean in zip(shares, wanted, strict=True):
        assert abs(share.mean().item() - mean) < 0.1
    assert torch.equal(strategy.gates()["blocks"], torch.eye(5)[4:])


def test_before_a_supernet_exists_all_options_are_equal():
    strategy = make(composed("strategy=singlepath").strategy, space=one_block())
    assert strategy.gates()["blocks"].tolist() == [[pytest.approx(0.2)] * 5]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategy/mixed_op=full", r"^relaxation: compares norms of a super-kernel"),
        ("strategy/update=second_order", r"^relaxation: reads .*, and SecondOrder runs others"),
        ("strategy/update=relaxed", r"^relaxation: reads .*, and Relaxed runs others, too; set"),
        (
            "strategy/pruning=share_threshold",
            r"^relaxation: opens one option of a row, which ShareThreshold may prune; set",
        ),
    ],
)
def test_what_does_not_fit_is_refused(override: str, message: str):
    with pytest.raises(ValueError, match=message):
        ready(override)


def test_a_second_choice_is_refused():
    """Rows of both would have the same number."""
    net, strategy, _ = ready()
    two: Any = SimpleNamespace(space=SimpleNamespace(choices={"blocks": None, "more": None}))
    with pytest.raises(ValueError, match=r"^has thresholds for one choice, found blocks, more; "):
        strategy.relaxation.setup(net, two)
