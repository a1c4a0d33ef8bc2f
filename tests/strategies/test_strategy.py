"""What `Strategy` itself does, by hand: bounds of its settings, schedules, hooks, and its state."""

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.darts import CANDIDATES
from search_spaces.space import Space
from strategies.contracts import LossTerm, Pruning, Regularisation, Stage, Stopping
from strategies.discretisation.strongest import strongest
from strategies.discretisation.survivors import survivors
from strategies.gradients import eagerly
from strategies.losses.label_smoothing import LabelSmoothing
from strategies.relaxation.gumbel import Gumbel
from strategies.relaxation.softmax import Softmax
from strategies.schedules import constant, cosine, cosine_power, exponential
from strategies.strategy import Strategy
from strategies.topology.edge_normalisation import EdgeNormalisation
from strategies.update.first_order import FirstOrder
from strategies.update.one_level import OneLevel
from supernets.mixed_op import MixedOp
from supernets.network import supernet

UNEVEN = [["skip_connect"], ["none", "skip_connect", "sep_conv_3x3"], ["none", "skip_connect"]]


def two_groups() -> Space:
    """Groups `a` and `b` of three edges with 1, 3 and 2 candidates."""
    cell = Cell(1, 2, complete_edges(1, 2, UNEVEN), keep=1, output="last")
    return CellSpace(
        name="two_groups", family=two_groups, settings={}, cells={"cell": cell},
        layers=tuple(Layer("cell", group, 4, False) for group in ("a", "b")),
        operations={name: CANDIDATES[name] for name in UNEVEN[1]}, input_shape=(1, 8, 8),
        classes=3, stem="plain", stem_channels=4, preprocess=False, head="pool_linear",
    )  # fmt: skip


def made(**changes: Any) -> Strategy:
    """Plain DARTS but for these settings."""
    settings: dict[str, Any] = dict(
        relaxation=Softmax(1.0, 1.0), mixed_op=MixedOp, topology=None,
        schedule=cosine, alpha_schedule=constant,
        update=FirstOrder(), losses={}, pruning=None, stopping=None,
        regularisation=None, discretisation=strongest,
        alpha_optimizer=partial(torch.optim.Adam, lr=3e-4),
        weight_optimizer=partial(torch.optim.SGD, lr=1.0), min_lr=0.2, lr_batch=None,
        alpha_lr_scale=1.0, clip=5.0, alpha_init=1e-3, warmup=0.0,
    )  # fmt: skip
    return Strategy(two_groups(), **{**settings, **changes})


def ready(**changes: Any) -> Strategy:
    strategy = made(**changes)
    strategy.setup(supernet(strategy.space, strategy.mixed_op), torch.device("cpu"))
    return strategy


@pytest.mark.parametrize(
    ("name", "value"),
    [("warmup", 1), ("warmup", -0.01), ("min_lr", -0.1), ("clip", 0), ("clip", -1),
     ("alpha_lr_scale", 0), ("alpha_lr_scale", -1), ("lr_batch", 0)],
)  # fmt: skip
def test_a_setting_out_of_its_bounds_is_refused(name: str, value: float):
    with pytest.raises(ValueError, match=rf"{name}: expected"):
        made(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("warmup", 0), ("warmup", 0.99), ("min_lr", 0), ("clip", 0.5), ("clip", None),
     ("alpha_lr_scale", 0.5), ("lr_batch", 1), ("lr_batch", None)],
)  # fmt: skip
def test_a_setting_at_its_bound_is_taken(name: str, value: float | None):
    made(**{name: value})


@pytest.mark.parametrize("of", ["alpha", "weight"])
@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"no_such_setting": 1}])
def test_a_setting_that_an_optimiser_refuses_is_named(of: str, wrong: dict[str, float]):
    with pytest.raises(ValueError, match=rf"{of}_optimizer: .*(learning rate|no_such)"):
        made(**{f"{of}_optimizer": partial(torch.optim.Adam, **wrong)})


def test_alphas_and_betas_start_at_their_standard_deviation():
    torch.manual_seed(0)
    drawn = [torch.randn(shape) for shape in ((3, 3), (3, 3), (3,), (3,))]
    torch.manual_seed(0)
    strategy = made(topology=EdgeNormalisation(), alpha_init=0.5)
    named = strategy.named_arch_parameters()
    assert list(named) == ["alpha.a", "alpha.b", "beta.a", "beta.b"]
    for found, noise in zip(named.values(), drawn, strict=True):
        torch.testing.assert_close(found.detach(), 0.5 * noise)


def test_rows_shorter_than_the_table_are_dead_from_the_start():
    expected = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    strategy = made()
    assert all(torch.equal(strategy.alive[group], expected) for group in ("a", "b"))
    assert strategy.mixture().groups["a"].active == [[0], [0, 1, 2], [0, 1]]


def test_a_strategy_computes_whole_batches_eagerly():
    assert (made().micro_batches, made().gradients) == (1, eagerly)


def test_all_that_a_pass_reads_goes_to_the_device():
    """On `meta` there are no numbers: whatever stayed behind is told by its device."""
    strategy, meta = made(topology=EdgeNormalisation()), torch.device("meta")
    strategy.setup(supernet(strategy.space, strategy.mixed_op).to(meta), meta)
    moved = [*strategy.alive.values(), *strategy.relaxation.buffers()]
    for tensor in [*strategy.arch_parameters(), *strategy.weights, *moved]:
        assert tensor.device == meta
    updated = [p for group in strategy.alpha_optimizer.param_groups for p in group["params"]]
    assert list(map(id, updated)) == list(map(id, strategy.arch_parameters()))


def test_alphas_move_when_the_share_of_the_warmup_is_over():
    assert [made(warmup=0.3).alphas_move(e, 4) for e in range(4)] == [False, *[True] * 3]
    assert [made(warmup=0).alphas_move(e, 2) for e in range(2)] == [True, True]


def test_the_rate_of_the_weights_falls_by_half_a_cosine():
    strategy = ready()
    root = math.sqrt(0.5)
    for epoch, share in enumerate((1, (1 + root) / 2, 0.5, (1 - root) / 2)):
        strategy.epoch_start(epoch, 4)
        (group,) = strategy.weight_optimizer.param_groups
        assert group["lr"] == pytest.approx(0.2 + 0.8 * share)


def test_rates_are_for_a_batch_of_their_own_size():
    strategy = ready(lr_batch=64)
    strategy.for_batches(16)
    assert (strategy.min_lr, strategy.weight_lr) == (pytest.approx(0.05), pytest.approx([0.25]))
    assert strategy.weight_optimizer.param_groups[0]["lr"] == pytest.approx(0.25)


class Term(LossTerm):
    """A term of the loss that is one number; of these roles only, if they are given."""

    def __init__(self, value: float, roles: tuple[str, ...] = LossTerm.roles):
        self.value, self.roles = value, roles

    def __call__(self, net: Any, batch: Any, logits: Tensor, mixture: Any) -> Tensor:
        return torch.tensor(self.value)


def test_a_loss_is_cross_entropy_and_the_terms_of_its_role():
    strategy = ready()
    strategy.losses = {
        "all": Term(1.0),
        "train": Term(10.0, ("train",)),
        "val": Term(100.0, ("val",)),
    }
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    plain = F.cross_entropy(strategy.net(x, strategy.mixture()), y).item()
    for role, added in (("train", 11), ("val", 101)):
        loss, logits = strategy.loss(strategy.net, (x, y), role)
        assert loss.item() == pytest.approx(plain + added)
        assert logits.shape == (4, 3)
    assert strategy.loss(strategy.net, (x, y))[0].item() == pytest.approx(plain + 11)


def test_constants_stay_until_something_a_pass_reads_changes():
    strategy = ready()
    first = strategy.constants()
    assert first is not None
    assert strategy.constants() == first
    strategy.prune({name: table.clone() for name, table in strategy.alive.items()})
    assert strategy.constants() not in (None, first)  # what is alive was looked at anew
    strategy.losses["said"] = LabelSmoothing(weight=0.1)
    assert strategy.constants() is not None
    strategy.losses["unsaid"] = Term(1.0)
    assert strategy.constants() is None


def test_constants_are_not_known_of_parts_of_cells_computed_twice_and_of_what_is_drawn():
    strategy = ready()
    strategy.micro_batches = 2
    assert strategy.constants() is None
    strategy.micro_batches = 1
    assert strategy.constants() is not None
    strategy.net.checkpoint_cells = True
    assert strategy.constants() is None
    strategy.net = nn.Identity()  # which has no cells to compute twice
    assert strategy.constants() is not None
    assert ready(relaxation=Gumbel(1.0, 1.0)).constants() is None


@pytest.mark.parametrize(
    ("verdicts", "stops"), [((None, None), False), ((1, "yes"), False), ((None, True), True)]
)
def test_a_search_stops_where_an_ingredient_says_true(verdicts: tuple, stops: bool):
    """What an epoch's end returns otherwise says nothing; every ingredient is asked."""
    asked = []
    strategy = made(pruning=Pruning(), stopping=Stopping())
    for part, verdict in zip((strategy.pruning, strategy.stopping), verdicts, strict=True):
        part.epoch_end = lambda *given, says=verdict: asked.append(given) or says
    net = nn.Identity()
    assert strategy.epoch_end(net, "loaders", 0.5) is stops
    assert asked == [(net, strategy, "loaders", 0.5)] * 2


def test_what_any_ingredient_keeps_is_kept():
    strategy = made(pruning=Pruning(), stopping=Stopping())
    strategy.pruning.keep = lambda found, last: ["x", found, str(last)]
    strategy.stopping.keep = lambda found, last: [found, str(last)]
    assert strategy.keep("found", last=True) == ["x", "found", "True", "found", "True"]  # type: ignore[arg-type, comparison-overlap]


def test_hooks_of_a_step_come_before_and_after_the_update():
    order: list[Any] = []
    strategy = made(pruning=Pruning())
    strategy.update.step = lambda *given, move_alphas: order.append(move_alphas) or {}
    strategy.pruning.before_step = lambda progress: order.append(progress)
    strategy.pruning.after_step = lambda net, its: order.append(its)
    batch = torch.zeros(1), torch.zeros(1)
    assert strategy.step(nn.Identity(), batch, None, progress=0.25, move_alphas=False) == {}
    assert order == [0.25, False, strategy]


def test_pruning_never_brings_a_candidate_back():
    strategy = made()
    off = {name: table.clone() for name, table in strategy.alive.items()}
    off["b"][1, 2] = False
    strategy.prune(off)
    strategy.prune({name: torch.ones(3, 3, dtype=torch.bool) for name in off})
    expected = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
    assert torch.equal(strategy.alive["b"], expected)
    assert strategy.mixture().groups["b"].active == [[0], [0, 1], [0, 1]]
    assert strategy.mixture().groups["a"].active == [[0], [0, 1, 2], [0, 1]]


def test_a_rule_that_keeps_several_candidates_has_no_best_architecture_within_limits():
    strategy = made()
    costs = {name: torch.ones(3, 3) for name in strategy.alive}
    found = strategy.within([costs], [4.0], seed=7)
    assert found is not None
    assert found.meta == {"seed": 7}
    assert strategy.within([costs], [3.0]) is None  # two nodes of two groups keep an edge each
    assert made(discretisation=survivors).within([costs], [9.0]) is None


def test_a_state_brings_everything_back_and_what_does_not_fit_is_refused():
    torch.manual_seed(0)
    strategy = ready(topology=EdgeNormalisation())
    alive = {name: table.clone() for name, table in strategy.alive.items()}
    alive["a"][1, 1] = False
    strategy.prune(alive)
    strategy.relaxation.temperature.fill_(0.5)
    state = strategy.state_dict()
    state = {**state, "weights": state["weights"][1:]}  # as after pruning
    strategy.weight_optimizer.param_groups[0]["params"].pop(0)

    other = ready(topology=EdgeNormalisation())
    before = other.structure
    other.load_state_dict(state)
    assert other.structure != before
    assert other.mixture().groups["a"].active == [[0], [0, 2], [0, 1]]
    assert other.relaxation.temperature == 0.5
    for ours, theirs in zip(other.arch_parameters(), strategy.arch_parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [other._weight_names[id(p)] for p in other.weights] == state["weights"]
    assert len(other.weight_optimizer.param_groups[0]["params"]) == len(state["weights"])

    for wrong in (alive["a"].float(), alive["a"][:2]):
        with pytest.raises(ValueError, match=r"'alive' of 'a' is not bool \(R, O\)"):
            other.load_state_dict({**state, "alive": {**alive, "a": wrong}})


def test_of_several_epochs_the_earliest_counts(monkeypatch):
    """Those that ingredients name as the result, and as the one to go back to."""
    strategy = ready(topology=EdgeNormalisation())
    assert (strategy.result(), strategy.returns_to(), strategy.may_return) == (None, None, False)
    for part, epoch in zip(strategy.ingredients(), (None, 4, 2), strict=True):
        monkeypatch.setattr(part, "result", lambda epoch=epoch: epoch)
        monkeypatch.setattr(part, "returns_to", lambda epoch=epoch: epoch and epoch - 1)
        monkeypatch.setattr(part, "may_return", epoch == 4)
    assert (strategy.result(), strategy.returns_to(), strategy.may_return) == (2, 1, True)


def test_the_schedules_set_the_rates_of_weights_and_alphas_between_their_bounds():
    strategy = ready(schedule=cosine, alpha_schedule=cosine, alpha_lr_scale=10.0)
    strategy.epoch_start(1, 2)
    rates = [o.param_groups[0]["lr"] for o in (strategy.weight_optimizer, strategy.alpha_optimizer)]
    assert rates == pytest.approx([(1.0 + 0.2) / 2, 3e-3 / 2])


def test_a_schedule_that_refuses_its_settings_is_named():
    with pytest.raises(
        ValueError, match=r"^schedule: an exponential schedule needs a min_lr above 0"
    ):
        made(schedule=exponential, min_lr=0.0)
    with pytest.raises(
        ValueError, match=r"^schedule.power: expected a number of at least 1 and at most"
    ):
        made(schedule=partial(cosine_power, power=0.5))
    with pytest.raises(ValueError, match=r"^alpha_schedule: expected a function, found 3"):
        made(alpha_schedule=3)


class OnVal(LossTerm):
    roles = ("val",)

    def __call__(self, net, batch, logits, mixture):
        return logits.sum()


def test_a_loss_on_val_images_is_refused_where_an_update_sees_none():
    made(losses={"mine": OnVal()})
    with pytest.raises(ValueError, match=r"^losses.mine: is added on val images, of which an upd"):
        made(losses={"mine": OnVal()}, update=OneLevel())


@pytest.mark.parametrize(("min_lr", "tried"), [(0.2, 0.2), (3.0, 1.0)])
def test_schedules_are_tried_at_the_start_of_a_search_of_one_epoch(min_lr: float, tried: float):
    """From a rate of 1 to one that is no larger; a third call is for a rate below `min_lr`."""
    seen: list[tuple[float, ...]] = []

    def noting(*given: float) -> float:
        seen.append(given)
        return given[0]

    made(schedule=noting, alpha_schedule=noting, min_lr=min_lr)
    assert seen[:2] == [(1.0, tried, 0, 1.0), (1.0, 0.0, 0, 1.0)]


def test_a_rate_of_the_weights_that_would_rise_is_refused():
    """Adam's usual 3e-4, or 0 for weights that stay, below the default of 1e-3."""
    for rate, shown in ((0.0, "0"), (3e-4, "0.0003")):
        slow = partial(torch.optim.SGD, lr=rate)
        with pytest.raises(ValueError, match=rf"^min_lr: 0.001 is above .*\.lr={shown}, so"):
            made(weight_optimizer=slow, min_lr=1e-3)
        made(weight_optimizer=slow, min_lr=1e-3, schedule=constant)
        made(weight_optimizer=slow, min_lr=rate)


def test_a_stage_that_begins_below_the_smallest_rate_keeps_its_own():
    class Slow(Pruning):
        def stage(self, epoch: int, epochs: float) -> Stage:
            return Stage(epoch, epochs, rate=0.1)

    strategy = ready(pruning=Slow())
    for epoch in range(3):
        strategy.epoch_start(epoch, 3)
        assert strategy.weight_optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


class Halved(Regularisation):
    """Halves the images."""

    def images(self, x: Tensor) -> Tensor:
        return x / 2


def test_a_regularisation_changes_the_images_of_both_roles_and_no_label():
    strategy, seen = ready(regularisation=Halved()), []

    class Noting(FirstOrder):
        def step(self, strategy: Any, net: Any, train: Any, val: Any, **how: Any) -> dict:
            seen.append((train, val))
            return {}

    strategy.update = Noting()
    x, y = torch.ones(2, 1, 8, 8), torch.tensor([1, 2])
    for val in ((3 * x, y + 1), None):
        strategy.step(strategy.net, (x, y), val, progress=0.0, move_alphas=True)
    (both, first), (again, none) = seen
    assert torch.equal(both[0], x / 2)
    assert torch.equal(both[1], y)
    assert torch.equal(first[0], 1.5 * x)
    assert torch.equal(first[1], y + 1)
    assert torch.equal(again[0], x / 2)
    assert none is None


def test_offsets_are_added_to_the_gates_that_run_and_the_sums_are_shares():
    """Softmax gates of 1/2 or 1/3; a pruned option stays as it is."""
    strategy = made(alpha_init=0.0)
    strategy.prune({n: t & (torch.arange(3) != 2) for n, t in strategy.alive.items()})
    offsets = {
        n: torch.tensor([[0.1, -2.0, 9.0]]).expand(t.shape) for n, t in strategy.alive.items()
    }
    mixture = strategy.mixture(offsets=offsets)
    before = strategy.mixture()
    for name, alive in strategy.alive.items():
        expected = torch.where(
            alive,
            (before.groups[name].gates + offsets[name]).clamp(0, 1),
            before.groups[name].gates,
        )
        assert torch.equal(mixture.groups[name].gates, expected)
        assert torch.equal(mixture.groups[name].gates[1], torch.tensor([0.6, 0.0, 0.0]))
