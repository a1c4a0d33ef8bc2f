"""Selection by perturbation: by hand, its timing, and that it goes on where it was killed."""

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults.toys import Killed, ToySearch, assert_same, left_in
from test_every_config import composed, make
from torch import Tensor, nn

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.darts import CANDIDATES, darts
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space
from strategies.pruning import perturbation
from strategies.pruning.perturbation import Perturbation, may_stay, measured, without
from strategies.strategy import Strategy
from supernets.mixture import GroupMixture, Mixture
from supernets.network import Network, supernet

NAMES = ["none", "skip_connect", "max_pool_3x3"]


def toy(keep: int | None) -> CellSpace:
    """Two inputs, two nodes, five edges."""
    return CellSpace(
        name="toy", family=toy, settings={}, operations={n: CANDIDATES[n] for n in NAMES},
        cells={"cell": Cell(2, 2, complete_edges(2, 2, NAMES), keep=keep, output="last")},
        layers=(Layer("cell", "cell", 4, False),), input_shape=(1, 4, 4), classes=2,
        stem="plain", stem_channels=4, preprocess=False, head="pool_linear",
    )  # fmt: skip


def ready(space: Space, *overrides: str) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    strategy = make(composed("strategy=darts_pt", *overrides).strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    return net, strategy


def worth(monkeypatch, tables: dict[str, Tensor]) -> None:
    """The supernet's accuracy is the sum of the worths (R, O) of what runs."""

    def sums(net: Network, mixture: Mixture, batches: object) -> tuple[float, float]:
        found = sum(
            float(tables[name][r, o])
            for name, part in mixture.groups.items()
            for r, row in enumerate(part.active)
            for o in row
        )
        return round(found, 6), 0.0

    monkeypatch.setattr(perturbation, "measured", sums)


EXHAUSTIVE = pytest.mark.exhaustive
LOADERS = SimpleNamespace(held_out=list)


def select(net: Network, strategy: Strategy, epochs: float) -> list[dict[str, int]]:
    """How many options of each choice are alive at the start and after each epoch."""
    left = [{name: int(table.sum()) for name, table in strategy.alive.items()}]
    for epoch in range(math.ceil(epochs)):
        strategy.epoch_start(epoch, epochs)
        strategy.epoch_end(net, LOADERS, min(1.0, (epoch + 1) / epochs))
        left.append({name: int(table.sum()) for name, table in strategy.alive.items()})
    return left


def test_darts_pt_what_hurts_most_stays_and_not_what_has_the_largest_alpha(monkeypatch):
    table = torch.tensor([[9, 2, 1], [9, 3, 4], [9, 5, 6], [9, 8, 7], [9, 4, 3.0]]) / 100
    net, strategy = ready(toy(keep=2))
    worth(monkeypatch, {"cell": table})
    with torch.no_grad():
        strategy.alphas["cell"].copy_(-table)
    select(net, strategy, 8)
    kept = {row: names[0] for row, names in strategy.architecture().choices["cell"].items()}
    skip, pool = NAMES[1:]
    assert kept == {"0-2": skip, "1-2": pool, "0-3": pool, "1-3": skip}  # 2-3 is worth least
    assert strategy.alive["cell"].sum() == 4
    torch.testing.assert_close(strategy.gates()["cell"].sum(1), torch.tensor([1.0, 1, 1, 1, 0]))


def test_darts_pt_edges_are_measured_again_after_each_that_goes(monkeypatch):
    """Without the first, the two that are left are worth more or less than before."""
    net, strategy = ready(toy(keep=1))
    into = [2, 3, 4]

    def accuracy(net: Network, mixture: Mixture, batches: object) -> tuple[float, float]:
        there = [r for r in into if mixture.groups["cell"].active[r]]
        values = {(3, 4): 0.9, (2, 4): 0.8, (2, 3): 0.7, (3,): 0.4, (4,): 0.6}
        return values.get(tuple(there), 1.0), 0.0

    monkeypatch.setattr(perturbation, "measured", accuracy)
    select(net, strategy, 4)
    assert strategy.alive["cell"][2:].any(1).tolist() == [False, False, True]


def test_darts_pt_of_equal_accuracies_the_loss_decides(monkeypatch):
    net, strategy = ready(toy(keep=2))

    def equal(net: Network, mixture: Mixture, batches: object) -> tuple[float, float]:
        return 0.5, -float(any(1 not in row for row in mixture.groups["cell"].active))

    monkeypatch.setattr(perturbation, "measured", equal)
    select(net, strategy, 1)
    kept = strategy.architecture().choices["cell"].values()
    assert set(kept) == {("skip_connect",)}


def test_darts_pt_the_papers_17_decisions_are_5_epochs_apart(monkeypatch):
    shape = dict(channels=4, input_shape=(3, 8, 8), classes=3, candidates=NAMES)
    space = darts(layers=3, nodes=4, **shape)
    net, strategy = ready(space)
    worth(monkeypatch, {n: torch.rand(table.shape) for n, table in strategy.alive.items()})
    left = select(net, strategy, 130)
    fewer = [[now[n] < then[n] for n in now] for then, now in pairwise(left)]
    assert [epoch for epoch, cells in enumerate(fewer, 1) if any(cells)] == list(range(50, 131, 5))
    assert all(len(set(cells)) == 1 for cells in fewer), "each cell makes a decision"
    assert set(left[-1].values()) == {8}


@pytest.mark.parametrize("epochs", [1, 2, 3, 2.5])
def test_darts_pt_a_short_search_makes_all_its_decisions(epochs: float, monkeypatch):
    net, strategy = ready(toy(keep=1))
    worth(monkeypatch, {"cell": torch.rand(5, 3)})
    assert select(net, strategy, epochs)[-1] == {"cell": 2}


def test_darts_pt_rates_start_again_at_a_tenth():
    _, strategy = ready(toy(keep=1), "strategy.warmup=0.5", "strategy.pruning.start=0.25")
    first, rates, moves = strategy.weight_lr[0], [], []
    for epoch in range(8):
        strategy.epoch_start(epoch, 8)
        rates.append(strategy.weight_optimizer.param_groups[0]["lr"])
        moves.append(strategy.alphas_move(epoch, 8))
    low = strategy.min_lr
    assert rates[:2] == pytest.approx([first, (first + low) / 2])
    assert rates[2] == pytest.approx(first / 10)
    assert rates[5] == pytest.approx((first / 10 + low) / 2)
    assert moves == [False] + [True] * 7


def test_darts_pt_the_other_gates_are_not_renormalised():
    gates = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    whole = Mixture({"a": GroupMixture(gates, None, [[0, 1, 2], [0, 1, 2]])})
    part = without(whole, "a", 1, [1]).groups["a"]
    torch.testing.assert_close(part.gates, torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.0, 0.3]]))
    assert part.active == [[0, 1, 2], [0, 2]]
    assert gates[1, 1] == torch.tensor(0.6)


def test_darts_pt_accuracy_and_loss_are_those_of_the_batch_statistics():
    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
            return self.norm(x) if self.norm.training else x

    net = Logits()
    x = torch.tensor([[3.0, 4.0], [1.0, 9.0]])  # normalised: (1, -1), (-1, 1)
    batches = [(x, torch.tensor([0, 0])), (x.flip(0), torch.tensor([1, 0]))]
    accuracy, loss = measured(net, Mixture({}), batches)
    assert accuracy == 0.75
    right, wrong = (math.log1p(math.exp(margin)) for margin in (-2, 2))
    assert loss == pytest.approx(-(3 * right + wrong) / 4, 1e-3)
    assert net.norm.num_batches_tracked == 0
    assert net.training


def test_darts_pt_zeros_are_chosen_where_a_row_may_be_empty(monkeypatch):
    net, strategy = ready(toy(keep=None))
    worth(monkeypatch, {"cell": torch.tensor([[1.0, 0, 0]] * 5)})
    select(net, strategy, 5)
    found = strategy.architecture()
    assert len(found.choices["cell"]) in (1, 2), "a path, and no more"
    assert "reconnected" not in found.meta


def test_darts_pt_a_zero_that_cuts_the_output_off_may_not_stay():
    shape = dict(channels=4, input_shape=(3, 8, 8), classes=3)
    space = nasbench201(layers=5, nodes=2, candidates=NAMES[:2], **shape)
    (choice,) = space.choices.values()
    names = choice.rows[0].names
    zero = names.index("none")
    every = list(range(len(names)))
    assert zero in may_stay(choice, [every, every, every], 0)
    empty = [every if row.source or row.target == 1 else [zero] for row in choice.rows]
    assert zero not in may_stay(choice, empty, 0)


def test_darts_pt_a_relaxation_that_runs_one_option_is_refused():
    with pytest.raises(ValueError, match=r"^pruning.start: selects by removing .* runs only one"):
        ready(toy(keep=1), "strategy/relaxation=gumbel")


@pytest.mark.parametrize("wrong", [dict(start=0.0), dict(start=1.0), dict(rate=0.0)])
def test_darts_pt_settings_outside_their_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: expected"):
        Perturbation(**(dict(start=0.5, rate=0.1) | wrong))


@pytest.mark.slow
@pytest.mark.parametrize("decision", [2, *(pytest.param(n, marks=EXHAUSTIVE) for n in (1, 3, 4))])
def test_darts_pt_killed_in_the_middle_of_the_selection_equals_uninterrupted(
    decision: int, toy_darts: Space, tmp_path: Path, monkeypatch
):
    whole, parts = (ToySearch(toy_darts, "darts_pt") for _ in range(2))
    expected = whole.run(tmp_path / "whole", epochs=3)
    real, made = Perturbation._decide, 0

    def dying(self, *args):
        nonlocal made
        made += 1
        real(self, *args)
        if made == decision:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Perturbation, "_decide", dying)
        with pytest.raises(Killed):
            parts.run(tmp_path / "parts", epochs=3, every_seconds=0.0)
    found = parts.run(tmp_path / "parts", epochs=3)
    assert (found.architecture, found.metrics) == (expected.architecture, expected.metrics)
    assert_same(parts.tensors(), whole.tensors())
    assert left_in(tmp_path / "parts") == left_in(tmp_path / "whole")
