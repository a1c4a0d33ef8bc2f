"""Planted answers that Single-Path NAS finds by its shipped defaults, and its price by hand.

Images tell their class by pixels at a distance: 4 needs a 5x5 kernel, for 2 a 3x3 is enough. Three
expanded channels a channel are enough for both, and a skip is not. `alpha_lr_scale` is set, as the
search has 320 steps instead of thousands.
"""

import pytest
import torch
from planted_lags import CHANNELS, lags, one_block
from test_every_config import OWN, composed, make
from torch import nn

from strategies.strategy import Strategy
from supernets.network import supernet

EPOCHS, STEPS = 40, 8
ANSWERS = {2: "mbconv_3x3_e3", 4: "mbconv_5x5_e3"}


def searched(lag: int, seed: int, *overrides: str, epochs: int = EPOCHS) -> Strategy:
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    config = composed("strategy=singlepath", "strategy.alpha_lr_scale=30", *overrides).strategy
    strategy = make(config, space=one_block())
    net = supernet(strategy.space, strategy.mixed_op).train()
    net.stem = nn.Conv2d(1, CHANNELS, 1)  # a wider one would bring the pixels together
    strategy.setup(net, torch.device("cpu"))
    strategy.for_batches(32)
    for epoch in range(epochs):
        strategy.epoch_start(epoch, epochs)
        for i in range(STEPS):
            strategy.step(
                net,
                lags(lag, source),
                lags(lag, source) if strategy.update.two_level else None,
                progress=(epoch + i / STEPS) / epochs,
                move_alphas=strategy.alphas_move(epoch, epochs),
            )
        strategy.epoch_end(net, None, (epoch + 1) / epochs)
    return strategy


def found(strategy: Strategy) -> str:
    return strategy.architecture().choices["blocks"]["0-1"][0]


def test_planted_neighbours_are_coins_and_pixels_at_the_lag_tell_the_class():
    x, y = lags(4, torch.Generator().manual_seed(0), images=400)
    sign = 1.0 - 2 * y[:, None, None, None]
    assert torch.equal(x[..., 4:], sign * x[..., :-4])
    for distance in (1, 2, 3):
        apart = (x[..., distance:] * x[..., :-distance]).mean((1, 2, 3))
        assert abs(apart[y == 0].mean() - apart[y == 1].mean()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("lag", ANSWERS)
def test_singlepath_5_the_planted_option_is_found(lag: int):
    assert found(searched(lag, 0)) == ANSWERS[lag]


@pytest.mark.exhaustive
@pytest.mark.parametrize("lag", ANSWERS)
def test_singlepath_5_the_planted_option_is_found_by_eight_of_ten_seeds(lag: int):
    names = [found(searched(lag, seed)) for seed in range(10)]
    assert names.count(ANSWERS[lag]) >= 8, names


@pytest.mark.slow
def test_singlepath_5_without_a_price_every_gate_stays_open():
    strategy = searched(2, 0, "strategy.losses.latency.weight=0")
    assert found(strategy) == "mbconv_5x5_e6"


@pytest.mark.exhaustive
def test_singlepath_6_the_cost_falls_with_the_price():
    """Five prices, three seeds each; the sum over the seeds, in multiply-accumulates."""
    costs = []
    for price in (0.0, 0.01, 0.1, 1.0, 10.0):
        runs = [searched(4, s, f"strategy.losses.latency.weight={price}") for s in range(3)]
        costs.append(sum(run.costs_of(run.architecture())["macs"] for run in runs))
    assert costs == sorted(costs, reverse=True), costs
    assert costs[-1] < costs[0]


def two_steps(*overrides: str) -> None:
    """Two steps and the end of an epoch; the second one after the warm-up."""
    torch.manual_seed(0)
    space = OWN["singlepath"]
    strategy = make(composed("strategy=singlepath", *overrides).strategy, space=space)
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, torch.device("cpu"))
    for epoch in range(2):
        strategy.epoch_start(epoch, 2)
        train, val = ((torch.randn(4, 3, 8, 8), torch.randint(10, (4,))) for _ in range(2))
        metrics = strategy.step(
            net,
            train,
            val if strategy.update.two_level else None,
            progress=epoch / 2,
            move_alphas=epoch == 1,
        )
        assert all(bool(value.isfinite()) for value in metrics.values())
    strategy.epoch_end(net, None, 1.0)
    strategy.architecture().check(space)
    assert any(bool(alpha.any()) for alpha in strategy.alphas.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        "strategy/update=first_order", "strategy/update=smooth",
        "strategy/topology=edge_normalisation", "strategy/regularisation=drop_path",
        "strategy/stopping=macs_floor",
        "strategy/losses=[latency,gate_cost]", "strategy/losses=[latency,self_distillation]",
        "strategy/losses=[latency,label_smoothing]",
        *(f"strategy/relaxation={r}" for r in ("softmax", "gumbel", "dirichlet", "sigmoid")),
    ],
)  # fmt: skip
def test_singlepath_works_with_the_other_ingredients(override: str):
    two_steps("strategy.warmup=0.5", override)
