"""The loop: exact resume, untouched roles, refusals."""

import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import search
from test_every_config import composed, make

from archsmith.errors import CheckpointError, ConfigError, DataError, Interrupted, NumbersError
from archsmith.search.loop import Search, measured_numbers
from archsmith.search.measure import Found
from archsmith.search.settings import SearchSettings
from archsmith.search.signal import Signal
from archsmith.search.time_budget import Pace
from archsmith.train import epochs as runner
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Progress, Record
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.contracts import Stopping
from strategies.gradients import eagerly
from strategies.searchers.random import RandomSearch
from strategies.strategy import Strategy
from strategies.update.first_order import FirstOrder
from supernets.network import Network, supernet

CPU = torch.device("cpu")
STRATEGIES = ["darts", "darts_second_order", "pcdarts"]
SLOW_STRATEGIES = [
    pytest.param(name, marks=[pytest.mark.slow] if name != "pcdarts" else []) for name in STRATEGIES
]


def data() -> Any:
    return make(
        composed("data=synthetic", "data.size=48", "data.image_size=16", "data.classes=3").data
    )


def start(space: Space, name: str, *overrides: str) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    small = {"classes": 3, "candidates": ["none", "max_pool_3x3", "sep_conv_3x3"]}
    if space.name == "nasbench201":
        small["candidates"] = ["none", "nor_conv_3x3", "avg_pool_3x3"]
    else:
        small["nodes"] = 1
    strategy = make(
        composed(f"strategy={name}", "strategy.alpha_lr_scale=10", *overrides).strategy,
        space=space.resize(**small),
    )
    net = supernet(strategy.space, strategy.mixed_op)
    strategy.setup(net, CPU)
    return net, strategy


def run(net: Network, strategy: Strategy, folder: Path, epochs: float = 3, **more: Any) -> Found:
    roles = data().loaders(8, one_level=not strategy.update.two_level, seed=0)
    return search(
        net,
        strategy,
        roles,
        SearchSettings(epochs=math.ceil(epochs), batch_size=8),
        record=Record(folder),
        checkpoints=Checkpoints(folder / "checkpoints", "search", {}, every_seconds=60),
        meta={},
        epochs=epochs,
        **more,
    )


def everything(net: Network, strategy: Strategy) -> list[torch.Tensor]:
    moments = [
        value
        for optimizer in (strategy.alpha_optimizer, strategy.weight_optimizer)
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    return [*net.state_dict().values(), *strategy.arch_parameters(), *moments]


@pytest.mark.parametrize("name", SLOW_STRATEGIES)
def test_a_resumed_search_equals_an_uninterrupted_one_bit_for_bit(
    name: str, toy_darts: Space, tmp_path: Path
):
    whole = start(toy_darts, name)
    expected = run(*whole, tmp_path / "whole")

    with pytest.raises(Interrupted):
        run(*start(toy_darts, name), tmp_path / "parts", stop=lambda: True)
    torch.manual_seed(99)  # a fresh process would start elsewhere
    resumed = start(toy_darts, name)
    found = run(*resumed, tmp_path / "parts")

    assert found == expected
    for ours, theirs in zip(everything(*resumed), everything(*whole), strict=True):
        assert torch.equal(ours, theirs)
    for epoch in range(3):
        file = f"architectures/epoch_{epoch:03d}.json"
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()

    def metrics(folder: str) -> list[dict[str, float]]:
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]

    assert metrics("parts") == metrics("whole")


def test_alphas_stand_still_during_warmup_and_adam_stays_empty(toy_darts: Space, tmp_path: Path):
    net, strategy = start(toy_darts, "pcdarts", "strategy.warmup=0.5")
    before = [p.detach().clone() for p in strategy.arch_parameters()]
    seen = []

    def stop() -> bool:
        still = all(
            torch.equal(a, b) for a, b in zip(before, strategy.arch_parameters(), strict=True)
        )
        seen.append((still, len(strategy.alpha_optimizer.state)))
        return False

    run(net, strategy, tmp_path, epochs=4, stop=stop)
    asked = 4  # times an epoch: after each of 3 steps, and at its end
    assert seen[: 2 * asked] == [(True, 0)] * 2 * asked
    assert not seen[2 * asked][0]
    assert seen[2 * asked][1] == 4


def test_a_warmup_that_leaves_no_epoch_is_refused(toy_darts: Space, tmp_path: Path):
    net, strategy = start(toy_darts, "pcdarts", "strategy.warmup=0.9")
    with pytest.raises(
        ConfigError, match=r"strategy\.warmup: 0\.9 of search\.epochs=1 leaves no epoch"
    ):
        run(net, strategy, tmp_path, epochs=1)


def test_the_test_split_is_never_touched(toy_darts: Space, tmp_path: Path, monkeypatch):
    def refuse(*_: object) -> None:
        raise DataError("the test split was read")

    monkeypatch.setattr("archsmith.data.roles.Data.test", refuse)
    run(*start(toy_darts, "darts"), tmp_path, epochs=1)


def test_numbers_that_are_not_finite_stop_the_search(toy_darts: Space, tmp_path: Path):
    net, strategy = start(
        toy_darts, "darts", "strategy.clip=null", "strategy.weight_optimizer.lr=1e30"
    )
    with pytest.raises(NumbersError, match=r"lower strategy\.weight_optimizer\.lr"):
        run(net, strategy, tmp_path)


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_alpha_step_leaves_weights_and_statistics_and_a_weight_step_leaves_alphas(
    name: str, toy_darts: Space, monkeypatch
):
    net, strategy = start(toy_darts, name)
    batch = torch.randn(4, 3, 16, 16), torch.randint(3, (4,))
    strategy.step(net, batch, batch, progress=0.0, move_alphas=True)
    weights = [t.clone() for t in net.state_dict().values()]
    buffers = [
        value.clone()
        for state in strategy.weight_optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    arch = [p.detach().clone() for p in strategy.arch_parameters()]
    with monkeypatch.context() as patch:
        patch.setattr(FirstOrder, "weight_step", lambda *_: {})
        strategy.step(net, batch, batch, progress=0.0, move_alphas=True)
    moved = zip(arch, strategy.arch_parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in moved)
    after = net.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    kept = [
        value
        for state in strategy.weight_optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    assert all(torch.equal(a, b) for a, b in zip(buffers, kept, strict=True))

    alphas = [p.detach().clone() for p in strategy.arch_parameters()]
    strategy.step(net, batch, None, progress=0.0, move_alphas=False)
    assert all(torch.equal(a, b) for a, b in zip(alphas, strategy.arch_parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "space", ["toy_darts", pytest.param("toy_nasbench201", marks=pytest.mark.slow)]
)
def test_pcdarts_with_k_1_and_no_edge_normalisation_is_darts_bit_for_bit(
    space: str, request, tmp_path: Path
):
    toy = request.getfixturevalue(space)
    same = [
        "strategy.mixed_op.k=1", "strategy/topology=none", "strategy.warmup=0",
        "strategy.min_lr=0.001", "strategy.lr_batch=null", "strategy.alpha_optimizer.lr=3e-4",
        "strategy.weight_optimizer.lr=0.025",
    ]  # fmt: skip
    ours = start(toy, "pcdarts", *same)
    found = run(*ours, tmp_path / "pcdarts", epochs=2)
    theirs = start(toy, "darts")
    assert found == run(*theirs, tmp_path / "darts", epochs=2)
    for a, b in zip(ours[1].arch_parameters(), theirs[1].arch_parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_exact_and_finite_difference_agree_on_a_network(toy_darts: Space):
    """At a radius that crosses no kink of a ReLU or max pool; the paper's 0.01 does cross some."""
    found = {}
    for hessian in ("exact", "finite_difference"):
        setting = f"strategy.update.hessian={hessian}"
        net, strategy = start(
            toy_darts, "darts_second_order", setting, "strategy.update.radius=1e-6"
        )
        net.double()
        for p in strategy.arch_parameters():
            p.data = p.data.double()
        torch.manual_seed(5)
        train, val = (
            (torch.randn(6, 3, 16, 16).double(), torch.randint(3, (6,))) for _ in range(2)
        )
        strategy.update.alpha_gradients(strategy, net.train(), train, val)
        found[hessian] = torch.cat([p.grad.flatten() for p in strategy.arch_parameters()])
    difference = (found["exact"] - found["finite_difference"]).norm() / found["exact"].norm()
    assert difference < 1e-8


@pytest.mark.parametrize(
    ("worth", "processes", "batch", "epochs", "probed"),
    [(6, 1, 8, 2, [8]), (5, 1, 100, 6, [22]), (7, 1, 8, 2, []), (6, 2, 8, 2, [])],
)
def test_memory_is_probed_before_a_long_search_of_one_process(
    worth: int,
    processes: int,
    batch: int,
    epochs: int,
    probed: list[int],
    toy_darts: Space,
    tmp_path: Path,
    monkeypatch,
):
    """Epochs of 3 steps, or of one; a batch has no more images than there are: 22."""
    asked = []
    monkeypatch.setattr(runner, "PROBED_STEPS", worth)
    monkeypatch.setattr(runner.distributed, "size", lambda: processes)
    monkeypatch.setattr(runner, "step_memory", lambda prepared, parts: parts)
    monkeypatch.setattr(runner, "check_memory", lambda *given, **_: asked.append(given[2]))
    monkeypatch.setattr(runner, "sparing", lambda *_, **__: "found")
    net, strategy = start(toy_darts, "darts")
    roles = data().loaders(batch, one_level=False, seed=0)
    assert len(roles.train.index) == 22
    settings = SearchSettings(epochs=epochs, batch_size=batch)
    record, checkpoints = Record(tmp_path), Checkpoints(tmp_path, "search", {})
    kept = dict(record=record, checkpoints=checkpoints)
    assert search(net, strategy, roles, settings, **kept) == "found"
    assert asked == probed


def test_a_probe_is_of_a_whole_step_on_copies_and_says_what_takes_less(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    net, strategy = start(toy_darts, "darts")
    settings = SearchSettings(epochs=2, batch_size=8, micro_batches=2)
    roles = data().loaders(8, one_level=False, seed=0)
    task = Search(net, strategy, roles, settings, record=Record(tmp_path), meta={})
    before = [tensor.clone() for tensor in everything(net, strategy)]
    steps, real = [], Strategy.step

    def stepping(self, ours, train, val, **how):
        steps.append((ours.training, len(train[0]), len(val[0]), how))
        return real(self, ours, train, val, **how)

    monkeypatch.setattr(Strategy, "step", stepping)
    said = []
    monkeypatch.setattr(runner, "step_memory", lambda prepared, parts: prepared(3)() and parts)
    monkeypatch.setattr(runner, "check_memory", lambda *given, **more: said.append((given, more)))
    net.eval()
    runner.probe(task)
    net.checkpoint_cells = True
    runner.probe(task)
    assert steps == [(True, 3, 3, {"progress": 1.0, "move_alphas": True})] * 2
    assert all(map(torch.equal, everything(net, strategy), before))
    fewer = "fewer space.channels, layers or candidates"
    assert [given for given, _ in said] == [("search", 2, 8, 2, CPU)] * 2
    assert [more["otherwise"] for _, more in said] == [
        f"runtime.checkpoint_cells=true, or {fewer}", fewer,
    ]  # fmt: skip


def test_graphs_are_dropped_where_there_are_any(toy_darts: Space, tmp_path: Path):
    net, strategy = start(toy_darts, "darts")
    roles, settings = data().loaders(8, one_level=False, seed=0), SearchSettings(2, 8)
    task = Search(net, strategy, roles, settings, record=Record(tmp_path), meta={})
    strategy.gradients = lambda *given: eagerly(*given)
    assert task.release()
    assert strategy.gradients is eagerly
    assert not task.release()


@pytest.mark.parametrize("steps", [6, 5])  # of the search; 5: the second epoch has 2
def test_progress_runs_from_0_to_1_in_steps_and_reaches_1_at_the_end(
    steps: int, toy_darts: Space, tmp_path: Path, monkeypatch
):
    net, strategy = start(toy_darts, "darts", "strategy.warmup=0.5")
    seen: list[Any] = []
    step, end = Strategy.step, Strategy.epoch_end

    def stepping(self, net, train, val, *, progress, move_alphas):
        seen.append((round(progress, 6), move_alphas, val is not None, net.training))
        return step(self, net, train, val, progress=progress, move_alphas=move_alphas)

    def ending(self, net, roles, progress):
        seen.append(round(progress, 6))
        return end(self, net, roles, progress)

    monkeypatch.setattr(Strategy, "step", stepping)
    monkeypatch.setattr(Strategy, "epoch_end", ending)
    run(net, strategy, tmp_path, epochs=steps / 3)
    still = [(round(i / steps, 6), False, False, True) for i in range(3)]
    move = [(round(i / steps, 6), True, True, True) for i in range(3, steps)]
    assert seen == [*still, round(3 / steps, 6), *move, 1.0]


def test_a_search_stops_and_keeps_its_last_where_an_ingredient_says_so(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """`keep` is told which epoch is the last: the one that stops, or the last of all."""
    told: list[bool] = []
    monkeypatch.setattr(Strategy, "keep", lambda self, found, *, last: told.append(last) or [])
    for stops, expected in ((1, [False, True]), (9, [False, False, True])):
        told.clear()
        ends = iter(range(9))
        monkeypatch.setattr(Strategy, "epoch_end", lambda *_, at=stops, ends=ends: next(ends) == at)
        net, strategy = start(toy_darts, "darts")
        found = run(net, strategy, tmp_path / str(stops), epochs=3)
        assert told == expected
        assert found.architecture.meta["epoch"] == len(expected) - 1
        files = sorted((tmp_path / str(stops) / "architectures").iterdir())
        assert [file.stem for file in files] == [f"epoch_{e:03d}" for e in range(len(expected))]


def test_the_result_is_the_earliest_epoch_that_an_ingredient_names(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    net, strategy = start(toy_darts, "pcdarts")
    for part, epoch in zip(strategy.ingredients(), (None, 2, 1), strict=True):
        monkeypatch.setattr(part, "result", lambda epoch=epoch: epoch)
    monkeypatch.setattr(Strategy, "architecture", drawn_each_time(strategy.space))
    found = run(net, strategy, tmp_path, epochs=4)
    files = [tmp_path / "architectures" / f"epoch_{epoch:03d}.json" for epoch in range(4)]
    assert found.architecture == Architecture.load(files[1])
    assert found.architecture != Architecture.load(files[3])
    assert found.architecture.meta["epoch"] == 1


def drawn_each_time(space: Space) -> Callable[..., Architecture]:
    draw = RandomSearch(space)
    return lambda self, **meta: replace(draw.ask(), meta=meta)


@pytest.mark.parametrize("name", ["darts", "goldnas"])
def test_what_a_step_measured_causes_before_effects(name: str, toy_darts: Space):
    _, strategy = start(toy_darts, name)
    for parameter in strategy.arch_parameters():
        parameter.data.fill_(0.25)
    first, *_ = strategy.arch_parameters()
    metrics = {"train_loss": torch.tensor(1.0), "train_accuracy": torch.tensor(0.5)}
    names = ["train_loss", "train_accuracy", "gradient of the alphas", "alphas"]
    found = measured_numbers(metrics, strategy)
    assert list(found) == names
    assert (found["gradient of the alphas"], found["alphas"]) == (0, 0.25)
    first.grad = torch.full_like(first, -3.0)
    found = measured_numbers(metrics | {"val_loss": torch.tensor(2.0)}, strategy)
    assert list(found) == ["val_loss", *names[2:], *names[:2]]
    assert (found["gradient of the alphas"], found["val_loss"]) == (3, 2)


@pytest.mark.slow
def test_the_bar_shows_the_means_of_the_epoch_every_ten_steps(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """Eleven steps an epoch, of losses 1 to 11: at the tenth the mean is 5.5."""
    steps, noted = itertools.count(), []

    def stepping(*_: Any, **__: Any) -> dict[str, torch.Tensor]:
        loss = 1.0 + next(steps) % 11
        return {"train_loss": torch.tensor(loss), "train_accuracy": torch.tensor(loss / 20)}

    monkeypatch.setattr(Strategy, "step", stepping)
    monkeypatch.setattr(Progress, "note", lambda _, *shown: noted.append(shown))
    net, strategy = start(toy_darts, "darts")
    roles = data().loaders(2, one_level=False, seed=0)
    assert len(roles.train) == 11
    search(
        net, strategy, roles, SearchSettings(epochs=2, batch_size=2),
        record=Record(tmp_path), checkpoints=Checkpoints(tmp_path / "checkpoints", "search", {}),
        meta={},
    )  # fmt: skip
    assert noted == [
        (epoch, {"train_loss": 5.5, "train_accuracy": pytest.approx(0.275)}) for epoch in (1, 2)
    ]


@pytest.mark.parametrize("due", [False, True])
def test_it_is_saved_at_the_start_at_the_end_and_when_due(
    due: bool, toy_darts: Space, tmp_path: Path, monkeypatch
):
    found, asked, kinds, began = [], [], [], time.perf_counter()

    def noting(self, epoch_over: bool = False) -> bool:
        kinds.append(epoch_over)
        return due

    monkeypatch.setattr(Checkpoints, "due", noting)
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, state: found.append((state["epoch"], state["step"]))
    )
    run(*start(toy_darts, "darts"), tmp_path, epochs=2, stop=lambda: bool(asked.append(1)))
    took = time.perf_counter() - began
    steps = [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)] if due else []
    assert found == [(0, 0), *steps, (2, 0)]
    assert len(asked) == 2 * 3 + 1  # after every step, and between epochs
    assert kinds == [False] * 3 + [True] + [False] * 3
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    seconds = [line["seconds"] for line in lines]
    assert len(seconds) == 2
    assert all(second > 0 for second in seconds)
    assert sum(seconds) <= took + 1e-3  # rounded


def test_an_epoch_took_from_its_first_step_to_its_measurements(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """To milliseconds, by a clock that goes on by 0.12345 s whenever the runner reads it."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: 0.12345 * next(ticks))
    monkeypatch.setattr(runner, "time", clock)
    run(*start(toy_darts, "darts"), tmp_path, epochs=1)
    (line,) = (tmp_path / "metrics.jsonl").open()
    assert json.loads(line)["seconds"] == 0.123


@pytest.mark.slow
def test_a_loss_like_guessing_is_told_in_the_epoch_that_judges(
    toy_darts: Space, tmp_path: Path, monkeypatch, caplog
):
    monkeypatch.setattr(runner, "judged_at", lambda epochs, steps: {(3, 3): 1}[epochs, steps])
    monkeypatch.setattr(runner, "not_learning", lambda *given: f"{given[-2]} {given[-1]}")
    run(*start(toy_darts, "darts"), tmp_path)
    said = [r.getMessage() for r in caplog.records if "weight_optimizer.lr" in r.getMessage()]
    assert said == ["search: 3 strategy.weight_optimizer.lr"]


def test_a_finished_search_measures_its_last_epoch_again(toy_darts: Space, tmp_path: Path):
    found = run(*start(toy_darts, "darts"), tmp_path, epochs=2)
    again = run(*start(toy_darts, "darts"), tmp_path, epochs=2)
    assert again.architecture == found.architecture
    assert again.architecture.meta["epoch"] == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_bar_counts_all_steps_and_goes_on_where_a_search_was_stopped(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """Two epochs of three steps, stopped after the second step of the second epoch."""
    begun: list[tuple[int, int]] = []

    def progress(phase: str, total: int, done: int) -> Progress:
        begun.append((total, done))
        return Progress(phase, total, done)

    monkeypatch.setattr(runner, "Progress", progress)
    asked = itertools.count(1)
    with pytest.raises(Interrupted):
        run(*start(toy_darts, "darts"), tmp_path, epochs=2, stop=lambda: next(asked) == 6)
    run(*start(toy_darts, "darts"), tmp_path, epochs=2)
    assert begun == [(6, 0), (6, 5)]


@pytest.mark.parametrize(
    "stop", [pytest.param(4, marks=pytest.mark.slow), 5, pytest.param(6, marks=pytest.mark.slow)]
)  # before the short epoch, in it, and after its last step
def test_b5_a_search_stopped_around_its_short_last_epoch_goes_on_bit_for_bit(
    stop: int, toy_darts: Space, tmp_path: Path
):
    """An epoch of three steps, then one of two: asked after each step, and between the epochs."""
    whole = start(toy_darts, "pcdarts")
    expected = run(*whole, tmp_path / "whole", epochs=5 / 3)
    asked = itertools.count(1)
    parts = start(toy_darts, "pcdarts")
    with pytest.raises(Interrupted):
        run(*parts, tmp_path / "parts", epochs=5 / 3, stop=lambda: next(asked) == stop)
    torch.manual_seed(99)
    resumed = start(toy_darts, "pcdarts")
    assert run(*resumed, tmp_path / "parts", epochs=5 / 3) == expected
    for ours, theirs in zip(everything(*resumed), everything(*whole), strict=True):
        assert torch.equal(ours, theirs)


def test_b5_the_epoch_after_which_no_other_fits_is_the_last_for_all(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    """Three epochs were planned, and after the second there is no time for another."""
    seen = []

    def epoch_end(self: Pace, done: int) -> None:
        self.epochs = min(self.epochs, 2.0 if done == 2 else 3.0)

    def keep(self: Strategy, found: Any, *, last: bool) -> list:
        seen.append(last)
        return []

    monkeypatch.setattr(Pace, "epoch_end", epoch_end)
    monkeypatch.setattr(Strategy, "keep", keep)
    run(*start(toy_darts, "darts"), tmp_path, epochs=3)
    assert seen == [False, True]


def test_what_an_ingredient_refuses_after_an_epoch_is_a_wrong_setting(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    def epoch_end(self: Strategy, *_: Any) -> bool:
        raise ValueError("strategy.losses.mine.lag: too long")

    monkeypatch.setattr(Strategy, "epoch_end", epoch_end)
    with pytest.raises(ConfigError, match=r"strategy\.losses\.mine\.lag: too long"):
        run(*start(toy_darts, "darts"), tmp_path, epochs=1)


class Stronger(Stopping):
    """Multiplies the weight decay by 100 after epoch 0: at once, or by going back after epoch
    `seen`."""

    may_return = True

    def __init__(self, seen: int | None) -> None:
        self.seen, self.epoch, self.stage = seen, -1, 0

    def setup(self, net: Any, strategy: Strategy) -> None:
        (self.group,) = strategy.weight_optimizer.param_groups

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.epoch = epoch

    def epoch_end(self, net: Any, strategy: Strategy, loaders: Any, progress: float) -> None:
        if self.seen is None and self.epoch == 0:
            self.load_state_dict({"stage": 1})

    def returns_to(self) -> int | None:
        return 0 if self.epoch == self.seen and self.stage == 0 else None

    def returned(self, strategy: Strategy) -> None:
        self.load_state_dict({"stage": 1})

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self.stage}

    def load_state_dict(self, state: Any) -> None:
        self.stage = state["stage"]
        self.group["weight_decay"] = 3e-2 if self.stage else 3e-4


def begun(space: Space, seen: int | None) -> Any:
    net, strategy = start(space, "pcdarts")
    strategy.stopping = Stronger(seen)
    strategy.stopping.setup(net, strategy)
    return net, strategy


def test_a_search_goes_on_from_the_epoch_it_returns_to_bit_for_bit(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    shown: list[int] = []
    monkeypatch.setattr(Progress, "at", lambda self, done: shown.append(done))
    left: list[str] = []
    returned = Stronger.returned

    def noted(self: Stronger, strategy: Strategy) -> None:
        left.extend(file.name for file in (tmp_path / "back" / "architectures").iterdir())
        returned(self, strategy)

    monkeypatch.setattr(Stronger, "returned", noted)
    straight, back = begun(toy_darts, None), begun(toy_darts, 2)
    expected = run(*straight, tmp_path / "straight", epochs=4)
    found = run(*back, tmp_path / "back", epochs=4)
    assert found.architecture == expected.architecture
    for ours, theirs in zip(everything(*back), everything(*straight), strict=True):
        assert torch.equal(ours, theirs)
    lines = (tmp_path / "back" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]
    assert left == ["epoch_000.json"]
    assert shown == [3]  # the progress bar, after one epoch of 3 steps


@pytest.mark.slow
def test_a_search_that_returned_resumes_bit_for_bit(toy_darts: Space, tmp_path: Path):
    whole, parts = begun(toy_darts, 2), begun(toy_darts, 2)
    run(*whole, tmp_path / "whole", epochs=4)
    asked = itertools.count(1)  # after each step and epoch: 3 epochs of 3 steps, then back
    with pytest.raises(Interrupted):
        run(*parts, tmp_path / "parts", epochs=4, stop=lambda: next(asked) == 14)
    assert parts[1].stopping.stage == 1
    torch.manual_seed(99)
    resumed = begun(toy_darts, 2)
    run(*resumed, tmp_path / "parts", epochs=4)
    for ours, theirs in zip(everything(*resumed), everything(*whole), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_a_lost_state_is_one_line(toy_darts: Space, tmp_path: Path, monkeypatch):
    def removed(search: Search) -> int | None:
        for file in (tmp_path / "checkpoints").glob("search_epoch_000*"):
            file.unlink()
        return search.strategy.returns_to()

    monkeypatch.setattr(Search, "returns_to", removed)
    with pytest.raises(CheckpointError, match="state at the end of epoch 1 is missing"):
        run(*begun(toy_darts, 2), tmp_path, epochs=4)


@pytest.mark.slow
def test_states_of_epochs_are_kept_only_where_a_search_may_return(toy_darts: Space, tmp_path: Path):
    """Seen after the third epoch; when the search is over, they are gone."""
    places = {"plain": start(toy_darts, "pcdarts"), "back": begun(toy_darts, 1)}

    def kept() -> list[int]:
        return [len([*(tmp_path / name).rglob("*_epoch_*.pt")]) for name in places]

    for name, parts in places.items():
        asked = iter([False] * (9 if name == "plain" else 17))
        with pytest.raises(Interrupted):
            run(*parts, tmp_path / name, epochs=4, stop=lambda asked=asked: next(asked, True))
    assert kept() == [0, 3]
    run(*start(toy_darts, "pcdarts"), tmp_path / "plain", epochs=4)
    run(*begun(toy_darts, 1), tmp_path / "back", epochs=4)
    assert kept() == [0, 0]


def test_the_signal_of_the_alphas_is_that_of_the_epoch(toy_darts: Space, tmp_path: Path):
    """None in the warm-up; then of the gradients of the epoch's own steps."""
    net, strategy = start(toy_darts, "darts", "strategy.warmup=0.4")
    gradients: list[torch.Tensor] = []
    real = strategy.step

    def noting(*args: Any, **more: Any) -> Any:
        found = real(*args, **more)
        if more["move_alphas"]:
            parts = [p.grad for p in strategy.arch_parameters() if p.grad is not None]
            gradients.append(torch.cat([one.flatten() for one in parts]).double())
        return found

    strategy.step = noting  # type: ignore[method-assign]
    roles = data().loaders(8, one_level=False, seed=0)
    settings = SearchSettings(epochs=3, batch_size=8, signal=True)
    kept = Checkpoints(tmp_path / "c", "search", {}, every_seconds=60)
    search(net, strategy, roles, settings, record=Record(tmp_path), checkpoints=kept, meta={})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["alpha_signal" in line for line in lines] == [False, True, True]
    steps = len(gradients) // 2
    for line, part in zip(lines[1:], (gradients[:steps], gradients[steps:]), strict=True):
        values = torch.stack(part)
        mean, variance = values.mean(0), values.var(0)
        squared = float((mean**2 - variance / steps).sum() / variance.sum())
        assert line["alpha_signal"] == pytest.approx(math.sqrt(max(0.0, squared)), abs=1e-6)


@pytest.mark.parametrize(("said", "asked"), [(None, [1, 2]), ("bad", [1])])
def test_a_degenerate_architecture_is_told_once_after_an_epoch_in_which_alphas_moved(
    said: str | None, asked: list[int], toy_darts: Space, tmp_path: Path, monkeypatch, caplog
):
    """Alphas move in epochs 1 to 3 of 4, from 0; the last one's is told at the end of the run."""
    net, strategy = start(toy_darts, "darts", "strategy.warmup=0.25")
    seen: list[int] = []

    def judged(space: Space, found: Architecture) -> str | None:
        seen.append(found.meta["epoch"])
        return said

    monkeypatch.setattr("archsmith.search.loop.degenerate", judged)
    run(net, strategy, tmp_path, epochs=4)
    assert seen == asked
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [line for line in told if "bad" in line or "None" in line] == (
        ["search epoch 2/4: bad"] if said else []
    )


def test_the_result_may_be_that_of_an_earlier_epoch(
    toy_darts: Space, tmp_path: Path, monkeypatch, caplog
):
    """Of 3 epochs the first is taken, by its file; the last is taken as it was measured."""
    taken = {}
    for epoch in (0, 2, None):
        net, strategy = start(toy_darts, "darts")
        monkeypatch.setattr(strategy, "result", lambda epoch=epoch: epoch)
        caplog.clear()
        with caplog.at_level("INFO"):
            taken[epoch] = run(net, strategy, tmp_path / str(epoch), epochs=3)
        told = [r.getMessage() for r in caplog.records if "the result is" in r.getMessage()]
        first = ["search: the result is the architecture of epoch 1"]
        assert told == (first if epoch == 0 else [])
    saved = Architecture.load(tmp_path / "0" / "architectures" / "epoch_000.json")
    assert taken[0].architecture == saved
    assert taken[2].metrics == taken[None].metrics
    assert taken[2].architecture.meta["epoch"] == 2


def test_the_signal_of_an_epoch_goes_on_where_it_was(toy_darts: Space, tmp_path: Path):
    """Stopped after the second of its three steps."""

    def searched(folder: Path, stops: tuple[bool, ...]) -> list[dict[str, Any]]:
        net, strategy = start(toy_darts, "darts")
        roles = data().loaders(8, one_level=False, seed=0)
        settings = SearchSettings(epochs=1, batch_size=8, signal=True)
        kept, asked = Checkpoints(folder / "c", "search", {}, every_seconds=60), iter(stops)
        record = Record(folder)
        stop = lambda: next(asked, False)  # noqa: E731
        search(net, strategy, roles, settings, record=record, checkpoints=kept, stop=stop)
        return [json.loads(line) for line in (folder / "metrics.jsonl").open()]

    (whole,) = searched(tmp_path / "whole", ())
    with pytest.raises(Interrupted):
        searched(tmp_path / "parts", (False, True))
    torch.manual_seed(99)
    (resumed,) = searched(tmp_path / "parts", ())
    assert resumed["alpha_signal"] == whole["alpha_signal"]


def test_a_signal_that_nobody_asked_for_costs_nothing(
    toy_darts: Space, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(Signal, "add", lambda *_: pytest.fail("gradients were summed"))
    run(*start(toy_darts, "darts"), tmp_path, epochs=1)
