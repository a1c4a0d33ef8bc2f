"""Relaxations that draw their gates: measured without noise, refused where passes are compared."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from helpers import search
from test_every_config import composed, make

from archsmith.errors import Interrupted
from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Record
from search_spaces.space import Space
from strategies.gradients import Batch
from strategies.strategy import Strategy
from supernets.network import Network, supernet

DRAWN = ["annealed", "gdas", "snas", "drnas", "rome"]
SECOND = "strategy/update=second_order"


def ready(space: Space, *overrides: str) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    small = space.resize(nodes=1, candidates=["none", "max_pool_3x3", "sep_conv_3x3"])
    strategy = make(composed(*overrides).strategy, space=small)
    net = supernet(small, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    return net, strategy


def batch() -> Batch:
    return torch.randn(4, 3, 16, 16), torch.randint(10, (4,))


@pytest.mark.parametrize("name", DRAWN)
def test_measuring_draws_nothing(name: str, toy_darts: Space):
    _, strategy = ready(toy_darts, f"strategy={name}")
    state = torch.get_rng_state()
    quiet = [strategy.mixture(noise=False).groups["normal"] for _ in range(2)]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(quiet[0].gates, quiet[1].gates)
    assert [len(row) for row in quiet[0].active] == [
        {"gdas": 1, "drnas": 2, "rome": 1}.get(name, 3)
    ] * 2
    torch.testing.assert_close(quiet[0].gates.sum(1), torch.ones(2))
    strategy.mixture()
    assert not torch.equal(state, torch.get_rng_state())  # the next pass draws again


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n != "gdas" else []) for n in DRAWN]
)
def test_finite_differences_are_refused_and_the_exact_hessian_works(name: str, toy_darts: Space):
    choice = [f"strategy={name}", SECOND]
    with pytest.raises(ValueError, match=r"draws new ones .* set hessian to exact"):
        ready(toy_darts, *choice, "strategy.update.hessian=finite_difference")
    net, strategy = ready(toy_darts, *choice)
    metrics = strategy.step(net, batch(), batch(), progress=0.5, move_alphas=True)
    assert torch.isfinite(metrics["val_loss"])
    gradients = torch.cat([p.grad.flatten() for p in strategy.arch_parameters()])
    assert gradients.isfinite().all()
    assert gradients.any()


def test_gates_that_are_not_drawn_may_be_compared(toy_darts: Space):
    choice = ["strategy=annealed", "strategy.relaxation.noisy_edges=0", SECOND]
    net, strategy = ready(toy_darts, *choice, "strategy.update.hessian=finite_difference")
    metrics = strategy.step(net, batch(), batch(), progress=0.0, move_alphas=True)
    assert torch.isfinite(metrics["val_loss"])


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.slow
def test_a_search_continues_as_if_never_stopped(name: str, toy_darts: Space, tmp_path: Path):
    """Noise, temperature and its bound are part of a checkpoint, bit for bit."""
    data = make(composed("data=synthetic", "data.size=48", "data.image_size=16").data)
    traces = []
    for folder, stops in ((tmp_path / "straight", [0]), (tmp_path / "stopped", [5, 0])):
        for after in stops:  # so many steps; three are an epoch
            net, strategy = ready(toy_darts.resize(classes=len(data.classes)), f"strategy={name}")
            roles = data.loaders(8, one_level=not strategy.update.two_level, seed=0)
            steps = itertools.count(1)
            try:
                search(
                    net,
                    strategy,
                    roles,
                    SearchSettings(epochs=3, batch_size=8),
                    record=Record(folder),
                    checkpoints=Checkpoints(folder / "checkpoints", "search", {}),
                    meta={},
                    stop=lambda steps=steps, after=after: next(steps) == after,
                )
            except Interrupted:
                assert after == 5
        traces.append([*strategy.arch_parameters(), *strategy.weights])
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        traces.append([json.loads(line).get("train_loss") for line in lines])
    assert all(map(torch.equal, traces[0], traces[2]))
    assert traces[1] == traces[3]
