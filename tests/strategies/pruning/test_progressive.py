"""Stages with fewer and fewer candidates: what each keeps, and when."""

import copy

import pytest
import torch
from test_every_config import composed, make

from search_spaces.darts import CANDIDATES, darts
from search_spaces.space import Space
from strategies.pruning.progressive import Progressive
from strategies.strategy import Strategy
from supernets.network import Network, supernet

SPACE = darts(
    layers=3, nodes=1, channels=8, input_shape=(3, 8, 8), classes=3, candidates=list(CANDIDATES)
)  # fmt: skip


def ready(*overrides: str, space: Space = SPACE) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    given = ["strategy/pruning=progressive", *overrides]
    strategy = make(composed(*given).strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    return net, strategy


def epoch(net: Network, strategy: Strategy, e: int, epochs: float) -> list[int]:
    """Positions of the options of the first row that are alive after an epoch."""
    strategy.epoch_start(e, epochs)
    strategy.epoch_end(net, None, min(1.0, (e + 1) / epochs))
    return strategy.alive["normal"][0].nonzero().flatten().tolist()


def test_pdarts_the_largest_five_and_then_three_stay():
    net, strategy = ready()
    with torch.no_grad():
        strategy.alphas["normal"][0] = torch.tensor([9.0, 1, 8, 2, 7, 3, 6, 4])
    left = [epoch(net, strategy, e, 6) for e in range(6)]
    assert left[0] == list(range(8))
    assert left[1] == left[2] == [0, 2, 4, 6, 7]
    assert left[3] == left[4] == left[5] == [2, 4, 6], "none is out of the last stage"
    assert strategy.alive["reduce"].sum(1).tolist() == [3, 3]
    assert strategy.keep(strategy.architecture(), last=True) == []


def test_pdarts_weights_of_what_goes_leave_their_optimiser():
    net, strategy = ready()
    before = len(strategy.weights)
    epoch(net, strategy, 1, 6)
    held = [p for group in strategy.weight_optimizer.param_groups for p in group["params"]]
    assert len(held) == len(strategy.weights) < before


def test_pdarts_schedules_and_warm_up_start_again_in_each_stage():
    _, strategy = ready("strategy.warmup=0.5")
    first, rates, moves = strategy.weight_lr[0], [], []
    for e in range(6):
        strategy.epoch_start(e, 6)
        rates.append(strategy.weight_optimizer.param_groups[0]["lr"])
        moves.append(strategy.alphas_move(e, 6))
    assert rates == pytest.approx([first, (first + strategy.min_lr) / 2] * 3)
    assert moves == [False, True] * 3


@pytest.mark.parametrize(
    ("epochs", "stages"),
    [(75, {0: 25, 25: 25, 50: 25}), (4, {0: 1, 1: 2, 3: 1}), (2, {0: 1, 1: 1}), (1, {0: 1})],
)
def test_pdarts_stages_cover_the_search(epochs: int, stages: dict[int, int]):
    pruning = Progressive(keep=[5, 3], zeros=True)
    found = {}
    for e in range(epochs):
        at, length, rate, warmup = pruning.stage(e, epochs)
        assert (rate, warmup) == (1.0, True)
        found[e - at] = length
    assert found == stages


def test_pdarts_a_short_search_ends_with_three():
    net, strategy = ready()
    assert len(epoch(net, strategy, 0, 2)) == 3


def test_drnas_progressive_keeps_none_where_every_edge_is_kept(toy_nasbench201: Space):
    net, strategy = ready("strategy.pruning.keep=[2]", space=toy_nasbench201)
    (name,) = strategy.alphas
    zero = strategy.space.choices[name].rows[0].names.index("none")
    with torch.no_grad():
        strategy.alphas[name][:, zero] = 1.0
    strategy.epoch_start(0, 1)
    strategy.epoch_end(net, None, 1.0)
    assert strategy.alive[name][:, zero].all()
    assert (strategy.alive[name].sum(1) == 2).all()


def test_pdarts_a_checkpoint_has_what_is_left():
    net, strategy = ready()
    epoch(net, strategy, 1, 6)
    state = copy.deepcopy(strategy.state_dict())
    other_net, other = ready()
    other.load_state_dict(state)
    strategy.alphas["normal"].data.copy_(other.alphas["normal"])
    assert epoch(other_net, other, 3, 6) == epoch(net, strategy, 3, 6)
    assert len(other.weights) == len(strategy.weights)


def test_drnas_progressive_may_do_without_zeros_from_the_start():
    _, strategy = ready("strategy.pruning.zeros=false")
    assert strategy.alive["normal"].sum(1).tolist() == [7, 7]


@pytest.mark.parametrize("keep", [[], [3, 5], [5, 5], [5, 1]])
def test_pdarts_numbers_that_do_not_fall_are_refused(keep: list[int]):
    with pytest.raises(ValueError, match=r"^keep: expected falling numbers of at least 2, found"):
        Progressive(keep=keep, zeros=True)
