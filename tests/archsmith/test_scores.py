"""The three kinds of scores of a searcher, on the command line and by themselves."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from archsmith.data.sets import synthetic
from archsmith.phases.scores import SinglePaths
from archsmith.search.ranking import kendall_tau
from search_spaces.nasbench201 import CANDIDATES
from search_spaces.space import Space
from supernets.mixed_op import MixedOp
from supernets.network import supernet

TINY = [
    "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3", "space=nasbench201",
    "space.layers=5", "space.channels=4", "search.epochs=1", "search.batch_size=16",
    "runtime.threads=1", "retrain.layers=5", "retrain.channels=4", "retrain.epochs=1",
    "retrain.batch_size=16", "task=search", "hydra.run.dir=d",
]  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Accuracies of all cells: 50 % and 5 more for every 3x3 convolution."""
    lines = ["architecture,cifar10,cifar100"]
    for a, b, c, d, e, f in product(CANDIDATES, repeat=6):
        name = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        found = 50 + 5 * name.count("nor_conv_3x3")
        lines.append(f"{name},{found},{found / 2}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def results() -> dict:
    return json.loads(Path("d/results.json").read_text())


@pytest.mark.slow
def test_a_table_scores_hundreds_of_architectures_at_once(archsmith, table: Path):
    given = [*TINY, "search.score=table", f"benchmark.table={table}"]
    said = archsmith(*given, "strategy=evolution", "strategy.asks=150")
    assert said.code == 0, said.err
    found = results()
    assert found["diagnosis"] == {"score": found["benchmark"]["accuracy"] / 100, "scored": 150}
    assert found["benchmark"]["accuracy"] >= 70
    said = archsmith(*given, "strategy=evolution", "strategy.asks=150", "benchmark.column=cifar100")
    assert said.code != 0
    assert "differing in benchmark.column" in said.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ([], "benchmark.table: task=rank and search.score=table need one; set it to a CSV file"),
        (["space=darts"], "benchmark.table"),
        (["search.score=guess"], "search.score: expected one of table, inherited, training"),
    ],
)
def test_a_table_that_cannot_score_is_refused(archsmith, overrides: list[str], line: str):
    said = archsmith(*TINY, "search.score=table", "strategy=mcts", *overrides)
    assert said.code == 2
    assert line in said.err


@pytest.mark.slow
def test_a_table_of_another_space_is_refused(archsmith, table: Path):
    given = [*TINY, "search.score=table", f"benchmark.table={table}", "strategy=mcts"]
    said = archsmith(*given, "space=darts", "space.layers=3", "retrain.layers=3")
    assert said.code == 2
    assert "search.score: tables are of spaces nasbench201, conv_macro" in said.err


def test_weights_of_a_space_without_a_supernet_cannot_be_inherited(archsmith):
    """Refused by the check before a run."""
    given = [one for one in TINY if "space" not in one and "retrain.layers" not in one]
    said = archsmith(
        *given, "space=modular", "space.layers=2", "retrain.layers=null", "strategy=random",
        "strategy.asks=2", "search.score=inherited", "task=check",
    )  # fmt: skip
    assert said.code == 2
    assert "search.score: space modular has no supernet whose weights could be" in said.err
    assert "set search.score=training" in said.err


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["search.score=inherited"], "set strategy.asks or search.seconds"),
        (["search.score=table"], "set strategy.asks"),
        (["search.score=table", "search.seconds=1"], "set strategy.asks"),  # which it never takes
    ],
)
def test_scores_without_an_end_are_refused(archsmith, overrides: list[str], remedy: str):
    """`random` has no number of architectures of its own."""
    said = archsmith(*TINY, "strategy=random", *overrides)
    assert said.code == 2
    assert "strategy.asks: null, so search.score=" in said.err
    assert said.err.strip().endswith(remedy)


@pytest.mark.slow
def test_a_time_budget_is_shared_by_the_supernet_and_the_scores(archsmith):
    """Half of it trains the supernet, for more than the one epoch that is set; the rest scores."""
    given = [*TINY, "search.score=inherited", "strategy=random", "search.seconds=4"]
    assert archsmith(*given).code == 0
    lines = [json.loads(line) for line in Path("d/metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["phase"] == "supernet"]
    scores = [line for line in lines if line["phase"] == "search"]
    assert results()["search_epochs"] == len(epochs) > 1
    assert results()["diagnosis"]["scored"] == len(scores) > 1
    assert 0.5 < sum(line["seconds"] for line in scores) < 3.5


@pytest.mark.slow
def test_a_check_foresees_both_parts_of_a_time_budget(archsmith):
    given = [*TINY, "search.score=inherited", "strategy=random", "search.seconds=60"]
    assert archsmith(*given, "task=check").code == 0
    told = json.loads(Path("d/preflight.json").read_text())["search"]
    assert told["epochs"] > 1
    assert told["scores"] > 1
    assert 40 < told["seconds"]["median"] < 80


@pytest.mark.slow
@pytest.mark.parametrize("score", ["inherited", "training"])
@pytest.mark.parametrize("strategy", ["evolution", "mcts_bisection", "smbo", "random"])
def test_every_searcher_searches_by_every_score(archsmith, score: str, strategy: str):
    said = archsmith(*TINY, f"search.score={score}", f"strategy={strategy}", "strategy.asks=4")
    assert said.code == 0, said.err
    assert results()["diagnosis"]["scored"] == 4
    assert archsmith(*TINY, "task=retrain", "architecture=d", "hydra.run.dir=e").code == 0


@pytest.mark.slow
def test_inherited_scores_are_those_of_one_supernet(archsmith):
    """The supernet is trained once; a repeated command reads its checkpoint."""
    given = [*TINY, "search.score=inherited", "strategy=random"]
    assert archsmith(*given, "strategy.asks=3").code == 0
    lines = [json.loads(line) for line in Path("d/metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["supernet", "search", "search", "search"]
    assert archsmith(*given, "strategy.asks=3", "hydra.run.dir=again").code == 0
    again = [json.loads(line) for line in Path("again/metrics.jsonl").read_text().splitlines()]
    assert [one["score"] for one in again[1:]] == [one["score"] for one in lines[1:]]


@pytest.mark.slow
def test_scores_are_compared_with_the_table(archsmith, table: Path):
    """Kendall's tau of the scores; a search whose time the supernet's training uses up has one."""
    given = [*TINY, "search.score=inherited", "strategy=random", f"benchmark.table={table}"]
    assert archsmith(*given, "strategy.asks=4").code == 0
    found = results()
    lines = [json.loads(line) for line in Path("d/metrics.jsonl").read_text().splitlines()]
    scores = [line["score"] for line in lines if line["phase"] == "search"]
    true = found["benchmark"]["accuracy_by_candidate"]
    assert len(scores) == len(true) == 4
    assert true[scores.index(max(scores))] == found["benchmark"]["accuracy"]
    assert found["ranking"] == {
        "kendall_tau": kendall_tau(scores, true), "samples": 4, "column": "cifar10"
    }  # fmt: skip
    short = [*given, "strategy.asks=4", "search.seconds=0.001", "hydra.run.dir=short"]
    assert archsmith(*short).code == 0
    assert json.loads(Path("short/results.json").read_text())["diagnosis"]["scored"] == 1


def single_paths(space: Space) -> SinglePaths:
    from test_every_config import composed, make

    data = synthetic(
        root=None, size=40, classes=space.classes, channels=3, image_size=16, noise=0.1, seed=0,
        split=0.5, select=0.2, limit=None, augment={"crop": 0, "flip": False, "cutout": 0},
    )  # fmt: skip
    torch.manual_seed(0)
    recipe = make(composed("retrain.weight_decay=0.1").retrain)
    roles = data.loaders(16, one_level=True, seed=0)
    return SinglePaths(supernet(space, MixedOp), roles.train, recipe)


def test_a_step_of_single_paths_trains_the_options_of_one_architecture(toy_nasbench201: Space):
    """Weights of other options stay as they are, weight decay included."""
    training = single_paths(toy_nasbench201)
    before = {name: p.detach().clone() for name, p in training.net.named_parameters()}
    batch = next(iter(training.start_epoch()))
    training.train_step(batch)
    moved = {n for n, p in training.net.named_parameters() if not torch.equal(p, before[n])}
    runs = training.path.groups["cell"].active
    assert all(len(row) == 1 for row in runs)
    untouched = [n for n in before if n not in moved]
    assert any(n.startswith("layers") for n in moved)
    assert untouched
    drawn = [training.path]
    for _ in range(5):
        training.train_step(batch)
        drawn.append(training.path)
    assert len({str(path.groups["cell"].active) for path in drawn}) > 1


def test_single_paths_resume_with_the_same_paths(toy_nasbench201: Space):
    whole, parts = single_paths(toy_nasbench201), single_paths(toy_nasbench201)
    batch = next(iter(whole.start_epoch()))
    parts.start_epoch()
    whole.train_step(batch)
    state = whole.state_dict()
    parts.load_state_dict(torch.load(_saved(state), weights_only=True))
    for _ in range(3):
        whole.train_step(batch)
        parts.train_step(batch)
    ours, theirs = whole.net.state_dict(), parts.net.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def _saved(state: dict):
    from io import BytesIO

    buffer = BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer
