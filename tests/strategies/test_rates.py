"""Learning rates: what a strategy makes of its settings for alphas, and for a size of batches."""

import pytest
import torch
from test_every_config import composed, make

from search_spaces.space import Space
from strategies.strategy import Strategy
from supernets.network import supernet


def ready(space: Space, *overrides: str) -> Strategy:
    strategy: Strategy = make(composed("experiment=paper", *overrides).strategy, space=space)
    strategy.setup(supernet(space, strategy.mixed_op), torch.device("cpu"))
    return strategy


def rate(optimizer: torch.optim.Optimizer) -> float:
    (group,) = optimizer.param_groups
    return float(group["lr"])


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 3e-4), ("sgd", 1.0)])
def test_b3_the_scale_of_the_alphas_rate_is_for_every_optimiser(optimizer, lr, toy_darts: Space):
    choice = f"strategy/alpha_optimizer={optimizer}"
    assert rate(ready(toy_darts, choice).alpha_optimizer) == pytest.approx(lr)
    scaled = ready(toy_darts, choice, "strategy.alpha_lr_scale=30")
    assert rate(scaled.alpha_optimizer) == pytest.approx(30 * lr)
    assert rate(scaled.weight_optimizer) == 0.025


def test_b3_pcdarts_rate_is_for_batches_of_256_and_falls_with_smaller_ones(toy_darts: Space):
    small = ready(toy_darts, "strategy=pcdarts", "strategy.min_lr=0.01")
    small.for_batches(64)
    assert rate(small.weight_optimizer) == pytest.approx(0.025)
    small.epoch_start(1, 2)  # half way from 0.025 to 0.0025
    assert rate(small.weight_optimizer) == pytest.approx((0.025 + 0.0025) / 2)
    paper = ready(toy_darts, "strategy=pcdarts")
    paper.for_batches(256)
    assert rate(paper.weight_optimizer) == pytest.approx(0.1)


def test_a_rate_that_is_for_any_batch_stays(toy_darts: Space):
    strategy = ready(toy_darts, "strategy=darts")
    strategy.for_batches(8)
    assert (rate(strategy.weight_optimizer), strategy.min_lr) == (0.025, 0.001)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("alpha_lr_scale=0", r"^alpha_lr_scale: expected a number above 0, found 0"),
     ("lr_batch=0", r"^lr_batch: expected a whole number of at least 1 or null, found 0")],
)  # fmt: skip
def test_wrong_scales_are_refused(setting: str, message: str, toy_darts: Space):
    with pytest.raises(ValueError, match=message):
        ready(toy_darts, f"strategy.{setting}")


def test_b3_drnas_has_no_none_where_edges_compete_and_has_it_on_nasbench201(
    toy_darts: Space, toy_nasbench201: Space
):
    strategy = ready(toy_darts, "strategy=drnas")
    none = toy_darts.groups["normal"].edges[0].names.index("none")
    assert not strategy.alive["normal"][:, none].any()
    assert int(strategy.alive["normal"].sum()) == 5 * 7
    assert all(none not in row for row in strategy.mixture().groups["reduce"].active)
    assert ready(toy_nasbench201, "strategy=drnas").alive["cell"].all()
