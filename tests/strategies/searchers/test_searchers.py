"""The searchers on spaces whose best architecture is known; expected numbers are worked out by hand
or simulated."""

import math
import statistics
from collections.abc import Callable
from itertools import pairwise, product

import pytest
import torch
from helpers import ROOT
from scipy.stats import chisquare, wilcoxon
from test_every_config import composed, make

from search_spaces.architecture import Architecture
from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.chains import chain
from search_spaces.darts import CANDIDATES
from search_spaces.space import Space
from strategies.searchers.encoding import Decisions, Draws
from strategies.searchers.evolution import Evolution
from strategies.searchers.mcts import TreeSearch, uct
from strategies.searchers.random import RandomSearch
from strategies.searchers.searcher import Searcher
from strategies.searchers.smbo import Smbo, ngrams
from supernets.network import final_network

Make = Callable[..., Searcher]
SEARCHERS: dict[str, Make] = {
    "evolution": Evolution,
    "mcts": TreeSearch,
    "mcts_bisection": lambda space, **how: TreeSearch(space, bisection=True, **how),
    "smbo": Smbo,
}


def line(decisions: int, names: list[str]) -> Space:
    """Blocks in a row, each with these options."""
    return chain(
        layers=decisions, channels=4, widths=[1], candidates=names, input_shape=(3, 8, 8),
        classes=2, operations={name: object for name in names if name not in CANDIDATES},
    )  # fmt: skip


def small() -> Space:
    """3 + 3 architectures of a node that keeps one of two inputs, with 3 options; 6 in all."""
    cell = Cell(2, 1, complete_edges(2, 1, ["none", *"abc"]), keep=1)
    return CellSpace(
        name="small",
        family=small,
        settings={},
        cells={"cell": cell},
        layers=(Layer("cell", "cell", 8, False),),
        operations=dict.fromkeys([*"abc", "none"], object),
        input_shape=(1, 8, 8),
        classes=2,
        stem="plain",
        stem_channels=8,
        preprocess=False,
        head="pool_linear",
    )


def matches(best: dict[str, str]) -> Callable[[Architecture], float]:
    """The share of blocks that keep the best option."""

    def score(architecture: Architecture) -> float:
        rows = architecture.choices["blocks"]
        return sum(rows[row] == (name,) for row, name in best.items()) / len(best)

    return score


def played(searcher: Searcher, score: Callable[[Architecture], float], asks: int) -> list[float]:
    scores = []
    for _ in range(asks):
        asked = searcher.ask()
        scores.append(score(asked))
        searcher.tell(asked, scores[-1])
    return scores


FIVE = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("toy", ["toy_darts", "toy_nasbench201"])
def test_deeparchitect_1_decisions_rebuild_the_architecture(toy: str, request):
    space: Space = request.getfixturevalue(toy)
    draws = Draws(space)
    for _ in range(50):
        found = draws.answer()
        again = draws.traverse(lambda decision, found=found: found.taken[decision.name])
        assert again == found
        assert draws.of(draws.architecture(found).choices) == found.taken


def test_deeparchitect_1_a_space_is_counted_by_its_decisions(toy_nasbench201: Space):
    for space, expected in ((small(), 6), (line(3, FIVE), 125)):
        found = {str(Draws(space).answer().kept) for _ in range(expected * 20)}
        assert len(found) == expected
    values: list[int] = []
    Decisions(toy_nasbench201).traverse(lambda one: values.append(len(one.values)) or 0)
    assert math.prod(values) == 5 ** len(toy_nasbench201.choices["cell"].rows)


def test_deeparchitect_2_random_architectures_are_equally_likely():
    """Uniform over the values of each decision is uniform over architectures here."""
    space = small()
    draws, search = Draws(space), RandomSearch(space)
    for ask in (lambda: draws.architecture(draws.answer()), search.ask):
        found = [ask().identity for _ in range(1200)]
        counts = [found.count(one) for one in sorted(set(found))]
        assert len(counts) == 6
        assert chisquare(counts).pvalue > 0.001


SPACES = sorted(path.stem for path in (ROOT / "conf" / "space").glob("*.yaml"))
QUICK = ("chain", "hypercuboid", "modular", "nasbench201", "tas")


@pytest.mark.parametrize(
    "name", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in SPACES]
)
def test_every_searcher_asks_for_networks_of_every_space(name: str):
    """Also behind a mutation, and by decisions that rebuild the architecture."""
    config = composed(f"space={name}")
    shape = (1, 1, 16) if name in ("gpt", "matformer") else (3, 32, 32)  # text, images
    space: Space = make(config.space, input_shape=shape, classes=3)
    small = {"evolution": {"population": 1, "tournament": 1}, "smbo": {"candidates": 2}}
    for searcher in (ask(space, **small.get(n, {})) for n, ask in SEARCHERS.items()):
        for told in range(2):
            asked = searcher.ask()
            with torch.device("meta"):
                final_network(space, asked)
            searcher.tell(asked, 0.1 * told)
    draws = Draws(space)
    child = draws.mutated(draws.answer().taken)
    assert draws.of(draws.architecture(child).choices) == child.taken


def test_a_mutated_layer_of_linked_rows_moves_the_next_one_to_its_width():
    config = composed("space=hypercuboid", "space.layers=4")
    draws = Draws(make(config.space, input_shape=(3, 32, 32), classes=3))
    for _ in range(20):
        parent = draws.answer()
        child = draws.mutated(parent.taken)
        assert sum(child.taken[name] != parent.taken[name] for name in parent.taken) == 1
        names = [option.split() for (option,) in child.kept["layers"].values()]
        assert all(a[1].split("-")[1] == b[1].split("-")[0] for a, b in pairwise(names))


def ordered(space: Space) -> Callable[[Architecture], float]:
    """1 - |i - 50| / 63 of one choice among 64 ordered values."""
    names = space.choices["blocks"].rows[0].names
    return lambda one: 1 - abs(names.index(one.choices["blocks"]["0-1"][0]) - 50) / 63


@pytest.mark.parametrize(
    ("bisection", "exploration", "expected", "seeds"),
    [
        (None, 0.1, 0.662, 40),
        (False, 0.1, 0.659, 40),
        (True, 0.1, 0.975, 40),
        (True, 0.5, 0.884, 40),
        (True, 1.0, 0.822, 40),
    ],
)
@pytest.mark.slow
def test_deeparchitect_3_bisection_finds_the_best_of_64_ordered_values(
    bisection: bool | None, exploration: float, expected: float, seeds: int
):
    """The mean score of the last 32 of 64 architectures; expected: simulated, 200 seeds."""
    space, means = line(1, [f"v{i:02d}" for i in range(64)]), []
    for seed in range(seeds):
        torch.manual_seed(seed)
        searcher: Searcher = RandomSearch(space)
        if bisection is not None:
            searcher = TreeSearch(space, exploration=exploration, bisection=bisection)
        means.append(statistics.fmean(played(searcher, ordered(space), 64)[32:]))
    error = statistics.stdev(means) / math.sqrt(seeds)
    assert statistics.fmean(means) == pytest.approx(expected, abs=0.02 + 2 * error)


def test_deeparchitect_4_uct_by_hand():
    assert uct(0.6, 4, 10, 0.5) == pytest.approx(1.13649, abs=1e-5)


@pytest.mark.parametrize("bisection", [False, True])
def test_deeparchitect_4_one_node_joins_the_tree_per_score(bisection: bool):
    space = line(4, FIVE)
    searcher = TreeSearch(space, bisection=bisection)
    for told in range(60):
        searcher.tell(searcher.ask(), 0.5)
        tree = searcher.tree
        assert len(tree) <= told + 1
        for node, (visits, total) in tree.items():
            children = [sums[0] for one, sums in tree.items() if one[:-1] == node and one != node]
            inner = len(node) < (4 if not bisection else 4 * 2)
            if inner and children:
                assert sum(children) == visits - 1
            assert total == pytest.approx(0.5 * visits)
    if not bisection:  # an unvisited child comes before a second visit of another
        assert all((i,) in tree for i in range(5))


def test_a_tree_learns_that_disconnected_architectures_score_nothing(toy_nasbench201: Space):
    searcher = TreeSearch(toy_nasbench201)
    scores = played(searcher, lambda _: 1.0, 200)
    assert len(scores) == 200
    visits, total = searcher.tree[()]
    assert total == 200 < visits


def linear(space: Space, seed: int) -> Callable[[Architecture], float]:
    """A planted score, linear in the counts of the n-grams."""
    source = torch.Generator().manual_seed(seed)
    choice = space.choices["blocks"]
    weights = {
        " ".join(gram): float(torch.randn((), generator=source))
        for n in (1, 2)
        for gram in product(FIVE, repeat=n)
    }
    return lambda one: sum(
        weights[gram] * count for gram, count in ngrams(choice, one.choices["blocks"], 2).items()
    )


def test_ngrams_of_a_graph_by_hand():
    cell = Cell(1, 2, complete_edges(1, 2, ["a", "b"]), keep=2)
    kept = {"0-1": ("a",), "0-2": ("b",), "1-2": ("a",)}
    assert ngrams(cell, kept, 1) == {"a": 2, "b": 1}
    assert ngrams(cell, kept, 4) == {"a": 2, "b": 1, "a a": 1}
    space = line(4, FIVE)
    kept = {"0-1": ("a",), "1-2": ("b",), "2-3": ("a",), "3-4": ("b",)}
    found = ngrams(space.choices["blocks"], kept, 3)
    assert found == {"a": 2, "b": 2, "a b": 2, "b a": 1, "a b a": 1, "b a b": 1}


@pytest.mark.slow
def test_deeparchitect_5_the_surrogate_finds_more_where_scores_are_linear_in_its_features():
    """The best of 64, paired over 20 planted scores."""
    space, ours, control = line(8, FIVE), [], []
    for seed in range(20):
        for searcher, best in ((Smbo(space), ours), (RandomSearch(space), control)):
            best.append(max(played(searcher, linear(space, seed), 64)))
    assert wilcoxon(ours, control, alternative="greater").pvalue < 1e-3


@pytest.mark.slow
def test_deeparchitect_6_evolution_finds_ten_options_of_five_long_before_random():
    """Random needs 5^10 = 9,765,625 architectures on average."""
    space = line(10, FIVE)
    best = {row.name: FIVE[i % 5] for i, row in enumerate(space.choices["blocks"].rows)}
    for seed in range(3):
        torch.manual_seed(seed)
        assert 1.0 in played(Evolution(space), matches(best), 10_000)


def test_deeparchitect_6_a_child_differs_in_one_decision_and_the_oldest_dies():
    """Beyond its first members, the population keeps its size."""
    space = line(6, FIVE)
    searcher = Evolution(space, population=10, tournament=3)
    for told in range(15):
        members = list(searcher.population)
        asked = searcher.ask()
        if told >= 10:
            taken = Decisions(space).of(asked.choices)
            changed = [sum(taken[n] != one[n] for n in taken) for one, _ in members]
            assert 1 in changed
        searcher.tell(asked, 0.1 * told)
        assert len(searcher.population) == min(told + 1, 10)
    assert searcher.population[:9] == members[1:]


def test_deeparchitect_6_the_parent_is_the_best_of_the_tournament():
    space = line(6, FIVE)
    searcher = Evolution(space, population=4, tournament=4)
    scores = played(searcher, lambda one: int(one.identity, 16) / 16**8, 4)
    parent, _ = max(searcher.population, key=lambda member: member[1])
    taken = Decisions(space).of(searcher.ask().choices)
    assert len(scores) == 4
    assert sum(taken[name] != parent[name] for name in taken) == 1


def test_a_mutation_that_leads_nowhere_is_a_new_draw():
    """A space of one architecture has no other."""
    space = line(3, ["a"])
    draws = Draws(space)
    assert draws.mutated(draws.answer().taken) == draws.answer()


def test_a_tournament_beyond_the_population_is_refused(toy_darts: Space):
    with pytest.raises(ValueError, match=r"tournament: 11 of a population of 10 cannot be drawn"):
        Evolution(toy_darts, tournament=11)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHERS)
def test_deeparchitect_7_no_searcher_finds_anything_in_noise(name: str):
    """The score is noise alone; the true value of what is found is that of a random one."""
    space, found = line(4, FIVE), []
    best = {row.name: "a" for row in space.choices["blocks"].rows}
    for seed in range(30):
        torch.manual_seed(seed)
        source = torch.Generator().manual_seed(seed)
        searcher, told = SEARCHERS[name](space), []
        for _ in range(40):
            asked = searcher.ask()
            score = float(torch.rand((), generator=source))
            told.append((score, matches(best)(asked)))
            searcher.tell(asked, score)
        found.append(max(told)[1])
    # 30 x 4 blocks, each right with probability 1/5
    assert abs(statistics.fmean(found) - 0.2) < 2.58 * math.sqrt(0.2 * 0.8 / 120)


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize("toy", ["toy_darts", "toy_nasbench201"])
def test_a_stopped_searcher_goes_on_as_it_was(name: str, toy: str, request):
    space: Space = request.getfixturevalue(toy)

    def score(architecture: Architecture) -> float:
        return int(architecture.identity, 16) / 16**8

    torch.manual_seed(1)
    whole = SEARCHERS[name](space)
    expected = played(whole, score, 24)
    torch.manual_seed(1)
    parts = SEARCHERS[name](space)
    found = played(parts, score, 12)
    asked = parts.ask()
    state = parts.state_dict()
    torch.manual_seed(9)
    parts = SEARCHERS[name](space)
    parts.load_state_dict(state)
    parts.tell(asked, score(asked))
    assert [*found, score(asked), *played(parts, score, 11)] == expected


@pytest.mark.parametrize("name", SEARCHERS)
def test_what_exceeds_a_budget_is_not_asked_for(name: str, toy_nasbench201: Space):
    costs = {
        "cell": torch.tensor([[1.0 + (o == 3) for o in range(5)]] * 6)[
            : len(toy_nasbench201.choices["cell"].rows)
        ]
    }
    searcher = SEARCHERS[name](toy_nasbench201)
    for _ in range(15):
        asked = searcher.within([costs], [4.0])
        assert asked is not None
        rows = asked.choices["cell"].values()
        assert sum(1.0 + (row == ("nor_conv_3x3",)) for row in rows) <= 4.0
        searcher.tell(asked, 0.5)


def planted(name: str, seed: int) -> bool:
    """Whether the one best architecture is among the 64 of the shipped settings: of 4 blocks with 3
    options each, by the number of right ones (random: 7 of 10 seeds); with bisection, the best of
    64 ordered values."""
    space = line(1, [f"v{i:02d}" for i in range(64)]) if "bisection" in name else line(4, FIVE[:3])
    best = {row.name: FIVE[i % 3] for i, row in enumerate(space.choices["blocks"].rows)}
    score = ordered(space) if "bisection" in name else matches(best)
    torch.manual_seed(seed)
    searcher = make(composed(f"strategy={name}").strategy, space=space)
    return max(played(searcher, score, searcher.asks)) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHERS)
def test_the_planted_architecture_is_found(name: str):
    assert planted(name, 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SEARCHERS)
def test_the_planted_architecture_is_found_by_eight_of_ten_seeds(name: str):
    assert sum(planted(name, seed) for seed in range(10)) >= 8
