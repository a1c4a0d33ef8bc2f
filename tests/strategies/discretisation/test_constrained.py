"""The best architecture within limits equals the one that enumeration finds."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.space import Space
from strategies.discretisation.constrained import LIMIT, cheapest, connected, within
from strategies.discretisation.decisions import Structure
from strategies.discretisation.strongest import best_options, strongest
from strategies.discretisation.survivors import survivors
from strategies.shares import every_option
from supernets.final_costs import total

NAMES = ["none", "skip", "small", "large"]


def toy(cell: Cell, groups: int) -> Space:
    layers = tuple(Layer("cell", f"g{i}", 4, reduction=False) for i in range(groups))
    return CellSpace(
        name="toy", family=lambda **_: None, settings={}, cells={"cell": cell}, layers=layers,
        operations={}, input_shape=(1, 8, 8), classes=2, stem="small", stem_channels=4,
        preprocess=False, head="",
    )  # fmt: skip


def two_inputs() -> Cell:
    return Cell(2, 2, complete_edges(2, 2, NAMES), keep=2)


def every_edge(output: str) -> Cell:
    return Cell(1, 2, complete_edges(1, 2, NAMES), keep=None, output=output)


def drawn(
    space: Space, seed: int, kinds: int = 2
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict]]:
    """Gates, what is alive, and kinds of costs; `none` and `skip` are free."""
    source = torch.Generator().manual_seed(seed)
    shape = {name: (len(cell.edges), cell.width) for name, cell in space.groups.items()}
    free = torch.tensor([0.0, 0.0, 1.0, 1.0])
    gates = {n: torch.rand(s, generator=source) for n, s in shape.items()}
    alive = {n: torch.ones(s, dtype=torch.bool) for n, s in shape.items()}
    costs = [
        {n: torch.randint(1, 20, s, generator=source) * free for n, s in shape.items()}
        for _ in range(kinds)
    ]
    return gates, alive, costs


def by_enumeration(space: Space, drops: bool, gates, costs, limits, alive=None) -> float:
    """The largest sum of log gates of all architectures within the limits; -inf without any."""
    cells = []
    for name, cell in space.groups.items():
        on = torch.ones(gates[name].shape) if alive is None else alive[name]
        may = [[o for o in range(4) if row[o] and (drops or o > 0)] for row in on.tolist()]
        here = []
        for picks in itertools.product(*([*o] if drops and o else [-1, *o] for o in may)):
            kept = {c.name: (NAMES[o],) for c, o in zip(cell.edges, picks, strict=True) if o > 0}
            inputs = [sum(picks[e] > 0 for e in cell.into(node)) for node in cell.targets]
            most = [min(2, sum(bool(may[e]) for e in cell.into(n))) for n in cell.targets]
            if cell.connects(kept) if drops else inputs == most and 0 not in most:
                chosen = [(e, o) for e, o in enumerate(picks) if o >= 0]
                score = sum(math.log(float(gates[name][e, o])) for e, o in chosen)
                spent = [sum(float(c[name][e, o]) for e, o in chosen) for c in costs]
                here.append((score, *spent))
        cells.append(here)
    best = -math.inf
    for parts in itertools.product(*cells):
        score, *spent = (sum(column) for column in zip(*parts, strict=True))
        if all(a <= b for a, b in zip(spent, limits, strict=True)):
            best = max(best, score)
    return best


def score_of(space: Space, drops: bool, choices, gates) -> float:
    total = 0.0
    for name, cell in space.groups.items():
        for e, edge in enumerate(cell.edges):
            names = choices[name].get(edge.name, ("none",) if drops else ())
            total += sum(math.log(float(gates[name][e, NAMES.index(n)])) for n in names)
    return total


@pytest.mark.parametrize(
    ("cell", "rule", "drops", "groups"),
    [
        (two_inputs(), strongest, False, 1),
        (every_edge("concat"), best_options, True, 2),
        (every_edge("last"), best_options, True, 2),
    ],
    ids=["two-inputs", "every-edge", "every-edge-to-the-last-node"],
)
@pytest.mark.parametrize("limits", [(0,), (7,), (19,), (33,), (12, 40), (25, 21), (400, 400)])
def test_it_is_the_best_of_all(cell: Cell, rule, drops: bool, groups: int, limits: tuple):
    space = toy(cell, groups)
    for seed in range(3):
        gates, alive, costs = drawn(space, seed)
        costs = costs[: len(limits)]
        best = by_enumeration(space, drops, gates, costs, limits)
        asked = {n: Structure.of_rule(rule, c) for n, c in space.groups.items()}
        choices = within(space.choices, asked, gates, alive, costs, limits)
        assert choices is not None
        assert score_of(space, drops, choices, gates) == pytest.approx(best)
        read = {n: rule(c, gates[n], None, alive[n]) for n, c in space.groups.items()}
        whole = cell.output == "concat" or all(cell.connects(kept) for kept in read.values())
        if limits == (400, 400) and whole:  # no limit bites: it is what the rule reads
            assert choices == read


@pytest.mark.parametrize("kinds", [1, 2, 3])
@pytest.mark.parametrize(
    ("cell", "groups"),
    [(two_inputs(), 1), (every_edge("concat"), 2), (every_edge("last"), 2)],
    ids=["two-inputs", "every-edge", "every-edge-to-the-last-node"],
)
def test_it_is_the_best_of_what_is_alive(cell: Cell, groups: int, kinds: int):
    space, drops = toy(cell, groups), cell.keep is None
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}
    fitted = 0
    for seed in range(8):
        gates, alive, costs = drawn(space, seed, kinds)
        source = torch.Generator().manual_seed(seed)
        for name, table in alive.items():
            table &= torch.rand(table.shape, generator=source) > 0.35
            gates[name][:, 0] += 0.5  # `none` would cut cells off
            gates[name][~table] = 1.0  # counts for nothing
        limits = torch.randint(0, 60, (kinds,), generator=source).tolist()
        best = by_enumeration(space, drops, gates, costs, limits, alive)
        choices = within(space.choices, structures, gates, alive, costs, limits)
        assert (choices is None) == (best == -math.inf)
        if choices is not None:
            fitted += 1
            assert score_of(space, drops, choices, gates) == pytest.approx(best)
            for tables, limit in zip(costs, limits, strict=True):
                assert total(Architecture.of(space, choices), space, tables) <= limit
    assert fitted > 0


def test_what_the_solver_calls_within_a_limit_and_is_not_is_not_taken(monkeypatch):
    """A solver that lets costs pass their limit by a fifth, as HiGHS may by a millionth."""
    solver, calls = scipy.optimize.milp, 0

    def loose(cost, *, constraints, **options):
        nonlocal calls
        calls += 1
        most = np.where(np.isclose(constraints.ub, LIMIT), 1.2 * LIMIT, constraints.ub)
        rows = scipy.optimize.LinearConstraint(constraints.A, constraints.lb, most)
        return solver(cost, constraints=rows, **options)

    monkeypatch.setattr(scipy.optimize, "milp", loose)
    space = toy(two_inputs(), 1)
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}
    for seed in range(4):
        gates, alive, (costs,) = drawn(space, seed, 1)
        costs = {name: 0.3137 * table.double() for name, table in costs.items()}  # no whole numbers
        best = by_enumeration(space, False, gates, [costs], [7.0])
        choices = within(space.choices, structures, gates, alive, [costs], [7.0])
        assert choices is not None
        assert score_of(space, False, choices, gates) == pytest.approx(best)
    assert calls > 8  # two a choice where none was wrong


def test_a_solver_that_gives_up_is_one_line(monkeypatch):
    result = scipy.optimize.OptimizeResult(status=4, x=None, message="out of memory")
    monkeypatch.setattr(scipy.optimize, "milp", lambda *_, **__: result)
    space = toy(two_inputs(), 1)
    gates, alive, costs = drawn(space, 0)
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}
    with pytest.raises(RuntimeError, match="budget: the solver gave up: out of memory"):
        within(space.choices, structures, gates, alive, costs, [9.0, 9.0])


@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_the_best_of_all_where_thousands_of_partial_choices_compete(seed: int):
    """By a dynamic programme over two whole-numbered costs; larger gates cost more."""
    names = ["none", "a", "b", "c", "d", "e"]
    cell, limits = Cell(1, 5, complete_edges(1, 5, names), keep=None), (600, 600)
    space, edges = toy(cell, 1), len(cell.edges)
    source = torch.Generator().manual_seed(seed)
    costs = [torch.randint(1, 100, (edges, 6), generator=source) for _ in limits]
    for table in costs:
        table[:, 0] = 0
    noise = 0.5 * torch.randn(edges, 6, generator=source)
    gates = (0.02 * sum(costs) + noise).softmax(1).double()
    best = np.full([limit + 1 for limit in limits], -np.inf)  # by what is spent
    best[0, 0] = competing = 0
    for e in range(edges):
        grown = np.full_like(best, -np.inf)
        for o in range(6):
            a, b = (int(table[e, o]) for table in costs)
            there, score = grown[a:, b:], math.log(gates[e, o])
            np.maximum(there, best[: 601 - a, : 601 - b] + score, out=there)
        best = grown
        front = np.maximum.accumulate(np.maximum.accumulate(best, 0), 1)
        cheaper = np.pad(front, ((1, 0), (1, 0)), constant_values=-np.inf)
        undominated = best > np.maximum(cheaper[:-1, 1:], cheaper[1:, :-1])
        competing = max(competing, int(undominated.sum()))
    assert competing > 5000
    structures = {"g0": Structure.of_space(cell)}
    alive = {"g0": every_option(cell)}
    found = within(
        space.choices, structures, {"g0": gates}, alive, [{"g0": t} for t in costs], limits
    )
    assert found is not None
    kept = [found["g0"].get(edge.name, ("none",))[0] for edge in cell.edges]
    score = sum(math.log(gates[e, names.index(name)]) for e, name in enumerate(kept))
    assert score == pytest.approx(best.max(), abs=1e-9)


def test_equal_scores_go_to_the_lower_edges_and_candidates():
    """As the rule does it, and within limits the same again."""
    space = toy(two_inputs(), 2)
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}
    _, alive, costs = drawn(space, 0)
    gates = {name: torch.full(table.shape, 0.25) for name, table in alive.items()}
    read = {n: strongest(c, gates[n], None, alive[n]) for n, c in space.groups.items()}
    assert within(space.choices, structures, gates, alive, costs, [400, 400]) == read
    for table in alive.values():
        table[:, 1] = False  # without the free candidate limits bite
    first = within(space.choices, structures, gates, alive, costs, [55, 90])
    assert first is not None
    assert first != {n: strongest(c, gates[n], None, alive[n]) for n, c in space.groups.items()}
    assert within(space.choices, structures, gates, alive, costs, [55, 90]) == first


def test_one_candidate_an_edge_leaves_nothing_to_score():
    """Its gate is 1, the log of it 0; it costs nothing either, and any limit is met."""
    space = toy(Cell(1, 1, complete_edges(1, 1, ["skip"]), keep=1), 1)
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}
    free = {"g0": torch.zeros(1, 1)}
    only = {"g0": {"0-1": ("skip",)}}
    alive = {"g0": torch.ones(1, 1, dtype=torch.bool)}
    for limit in (0.0, 1.0, math.inf):
        assert (
            within(space.choices, structures, {"g0": torch.ones(1, 1)}, alive, [free], [limit])
            == only
        )
    assert cheapest(space.choices, structures, free) == only


def test_by_hand():
    """Gates 0.6, 0.3, 0.1 at costs 5, 2, 0, twice: of 7 the best is one dear and one middle."""
    space = toy(Cell(1, 1, complete_edges(1, 1, ["free", "middle", "dear"]), keep=1), 2)
    spent = {"free": 0, "middle": 2, "dear": 5}
    gates = {name: torch.tensor([[0.1, 0.3, 0.6]]) for name in space.groups}
    costs = {name: torch.tensor([[0.0, 2.0, 5.0]]) for name in space.groups}
    alive = {name: table > 0 for name, table in gates.items()}
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}
    # of 6, 5 + 0: log 0.06; 2 + 2: log 0.09
    for limit, best in ((10, [5, 5]), (9, [2, 5]), (7, [2, 5]), (6, [2, 2]), (4, [2, 2])):
        found = within(space.choices, structures, gates, alive, [costs], [limit])
        assert found is not None
        assert sorted(spent[kept] for cell in found.values() for (kept,) in cell.values()) == best
    assert within(space.choices, structures, gates, alive, [costs], [-1]) is None


def test_what_is_not_alive_is_not_chosen():
    space = toy(two_inputs(), 1)
    gates, alive, costs = drawn(space, 0)
    alive["g0"][:, 1] = False  # no free candidate is left
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}
    assert within(space.choices, structures, gates, alive, costs[:1], (0,)) is None
    choices = within(space.choices, structures, gates, alive, costs[:1], (60,))
    assert choices is not None
    assert ("skip",) not in choices["g0"].values()


def test_an_edge_on_which_nothing_is_alive_leaves_the_others_to_connect():
    """With 0-2 gone the output needs 0-1 and 1-2, each with its largest gate but `none`."""
    space = toy(every_edge("last"), 1)
    gates, alive, costs = drawn(space, 0)
    alive["g0"][1] = False
    best = [NAMES[o] for o in gates["g0"][:, 1:].argmax(1) + 1]
    expected = {"0-1": (best[0],), "1-2": (best[2],)}
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}
    spent = [
        sum(float(table["g0"][e, NAMES.index(name)]) for e, name in ((0, best[0]), (2, best[2])))
        for table in costs
    ]
    assert within(space.choices, structures, gates, alive, costs, spent) == {"g0": expected}
    assert connected(space.groups["g0"], gates["g0"], alive["g0"]) == expected


def test_a_rule_says_by_its_answers_how_it_decides():
    pair, last = two_inputs(), every_edge("last")
    assert Structure.of_rule(strongest, pair) == Structure({2: 2, 3: 2}, False)
    assert Structure.of_rule(strongest, last) == Structure({1: 1, 2: 2}, True)
    assert Structure.of_rule(best_options, pair) == Structure({2: 2, 3: 3}, True)
    assert Structure.of_rule(survivors, pair) is None
    for cell in (pair, last):
        assert Structure.of_space(cell) == Structure.of_rule(strongest, cell)


def test_a_rule_from_outside_is_asked_with_shares_and_may_keep_two_options_a_row():
    def above(choice, gates, factors, alive):
        assert 0 < gates.min() <= gates.max() <= 1
        rows = zip(choice.rows, gates.tolist(), alive.tolist(), strict=True)
        return {
            row.name: tuple(
                option.name
                for option, g, on in zip(row.options, shares, lives, strict=True)
                if on and g > 0.4 and option.kind != "zero"
            )[:count]
            for row, shares, lives in rows
        }

    for count, expected in ((1, Structure({2: 2, 3: 3}, False)), (2, None)):  # noqa: B007 - read by the rule
        assert Structure.of_rule(above, two_inputs()) == expected


@pytest.mark.parametrize("cell", [two_inputs(), every_edge("last")], ids=["two-inputs", "every"])
def test_the_cheapest_costs_as_much_as_the_tightest_limit_that_can_be_met(cell: Cell):
    space = toy(cell, 2)
    gates, alive, (costs, _) = drawn(space, 0)
    costs = {n: table + torch.tensor([0.0, 1.0, 1.0, 1.0]) for n, table in costs.items()}
    structures = {n: Structure.of_space(c) for n, c in space.groups.items()}

    def spent(choices) -> float:
        return sum(
            float(costs[n][e, NAMES.index(kept)])
            for n, c in space.groups.items()
            for e, edge in enumerate(c.edges)
            for kept in choices[n].get(edge.name, ())
        )

    least = spent(cheapest(space.choices, structures, costs))
    best = within(space.choices, structures, gates, alive, [costs], [least])
    assert best is not None
    assert spent(best) == least
    assert within(space.choices, structures, gates, alive, [costs], [least - 1]) is None


@pytest.mark.parametrize("output", ["last", "concat"])
def test_b2_none_that_wins_everywhere_cuts_nothing_off(output: str):
    """Gates of `none` are the largest on every edge: the best of all connected choices is found."""
    space = toy(every_edge(output), 2)
    for seed in range(5):
        gates, alive, costs = drawn(space, seed)
        for table in gates.values():
            table[:, 0] += 1.0
        structures = {n: Structure.of_space(cell) for n, cell in space.groups.items()}
        limits = [15.0, 30.0]
        found = within(space.choices, structures, gates, alive, costs, limits)
        assert found is not None
        assert all(cell.connects(found[n]) for n, cell in space.groups.items())
        expected = by_enumeration(space, True, gates, costs, limits)
        assert score_of(space, True, found, gates) == pytest.approx(expected)


def test_a_target_without_a_row_that_is_alive_leaves_nothing():
    cell = two_inputs()
    space = toy(cell, 1)
    gates, alive, costs = drawn(space, 0)
    for row in cell.into(3):
        alive["g0"][row] = False
    structures = {"g0": Structure.of_space(cell)}
    assert within(space.choices, structures, gates, alive, costs, (400, 400)) is None


@pytest.mark.parametrize("wrong", [0, 1, -1])
def test_what_breaks_a_line_after_rounding_is_forbidden_and_solved_again(wrong: int, monkeypatch):
    """The solver's first answer is one option alone, nothing, or everything."""
    cell = two_inputs()
    space = toy(cell, 1)
    gates, alive, costs = drawn(space, 0)
    structures = {"g0": Structure.of_space(cell)}
    expected = within(space.choices, structures, gates, alive, costs, (25, 21))
    solve, answers = scipy.optimize.milp, []

    def milp(cost, **given):
        found = solve(cost, **given)
        if not answers:
            n = int(given["integrality"].sum())
            broken = np.ones(n) if wrong < 0 else np.zeros(n)
            broken[0] = float(wrong != 0)
            found.x[:n] = broken
        answers.append(found.x)
        return found

    monkeypatch.setattr(scipy.optimize, "milp", milp)
    assert within(space.choices, structures, gates, alive, costs, (25, 21)) == expected
    assert len(answers) == 3
