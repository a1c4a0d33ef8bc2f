"""The best architecture within cost limits, found exactly by an integer linear programme.

The score of an architecture is the sum of the log gates of its candidates, so without limits the
result equals that of the discretisation rule. The solver is HiGHS (Huangfu & Hall 2018,
doi:10.1007/s12532-017-0130-5), by `scipy.optimize.milp`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from search_spaces.choice import Choice
from strategies.discretisation.decisions import Structure
from strategies.shares import every_option

Tables = Mapping[str, Tensor]  # choice -> (R, O)
Kept = dict[str, dict[str, tuple[str, ...]]]
Column = tuple[str, int, int]  # choice, row, option
Line = tuple[Mapping[int, float], float, float]  # column -> coefficient; lower and upper bound
SLACK = 1e-9  # tolerance of a cost, relative to its limit
TIE = 1e-7  # of scores, relative to the largest log gate: the resolution of HiGHS
# HiGHS has an absolute tolerance of 1e-6, hence the scaling.
LIMIT, SCORE = 1e5, 1e3  # scaled value of a limit and of the largest log gate
ROUNDING = 1e-5  # allowed violation of a line after rounding


def within(
    choices: Mapping[str, Choice],
    structures: Mapping[str, Structure],
    gates: Tables,
    alive: Tables,
    costs: Sequence[Tables],
    limits: Sequence[float],
) -> Kept | None:
    """The options of largest score with each sum of `costs` within its limit; None if there are
    none.

    gates, alive and each of costs: choice -> (R, O); costs are not negative. The output of every
    choice depends on its input. Ties (closer than TIE) go to lower rows and options,
    deterministically.
    """
    scores = {name: _log(table) for name, table in gates.items()}
    return _best(choices, structures, scores, alive, costs, limits)


def cheapest(
    choices: Mapping[str, Choice], structures: Mapping[str, Structure], costs: Tables
) -> Kept:
    """The options of smallest cost. costs: choice -> (R, O)."""
    scores = {name: -table for name, table in costs.items()}
    alive = {name: every_option(choice) for name, choice in choices.items()}
    found = _best(choices, structures, scores, alive, [], [])
    assert found is not None
    return found


def connected(choice: Choice, gates: Tensor, alive: Tensor) -> dict[str, tuple[str, ...]]:
    """The best network whose output depends on its input: the largest sum of log gates, zeros too.

    gates (R, O), alive (R, O). For rules under which zeros may win so many rows that input and
    output are disconnected; a row keeps one option, or none.

    Raises:
        ValueError: no path of alive options leads from the input to the output.
    """
    one = {"": Structure({}, drops=True)}
    found = _best({"": choice}, one, {"": _log(gates)}, {"": alive}, [], [])
    if found is None:
        raise ValueError(
            "no way from a cell's input to its output is left; prune less, or "
            "give the space more candidates"
        )
    return found[""]


def _log(gates: Tensor) -> Tensor:
    return gates.double().clamp_min(torch.finfo(torch.float32).tiny).log()


def _best(
    choices: Mapping[str, Choice],
    structures: Mapping[str, Structure],
    scores: Tables,
    alive: Tables,
    costs: Sequence[Tables],
    limits: Sequence[float],
) -> Kept | None:
    """The options of largest score within the limits; None if there are none.

    A column of the programme is 1 if its option is chosen. A second solve breaks ties by the
    smallest sum of fixed weights that grow with the column.
    """
    columns = list(_columns(choices, structures, alive))
    lines = [
        line
        for name, choice, first in _with_flows(choices, len(columns))
        for line in _structure(name, choice, structures[name], columns, first)
    ]
    upper = np.ones(len(columns))

    def values(tables: Tables) -> np.ndarray:
        return np.array([float(tables[name][r, o]) for name, r, o in columns])

    for tables, limit in zip(costs, limits, strict=True):
        _limit(values(tables), limit, upper, lines)
    score = values(scores)
    score *= SCORE / (np.abs(score).max(initial=0) or 1)
    chosen = _solve(-score, upper, lines)
    if chosen is None:
        return None
    lines.append((dict(enumerate(score)), score @ chosen - TIE * SCORE, np.inf))
    weights = np.random.default_rng(0).uniform(1, 2, len(columns)).cumsum()
    again = _solve(weights, upper, lines)
    return _kept(choices, columns, chosen if again is None else again)


def _columns(
    choices: Mapping[str, Choice], structures: Mapping[str, Structure], alive: Tables
) -> Iterator[Column]:
    """What can be chosen: everything alive, zeros only where the structure lets them win."""
    for name, choice in choices.items():
        for r, offered in enumerate(choice.offers(zero=structures[name].drops)):
            for o, there in enumerate(offered):
                if there and alive[name][r, o]:
                    yield name, r, o


def _kept(choices: Mapping[str, Choice], columns: Sequence[Column], chosen: np.ndarray) -> Kept:
    kept: Kept = {name: {} for name in choices}
    for (name, r, o), on in zip(columns, chosen, strict=True):
        row = choices[name].rows[r]
        if on and row.options[o].kind != "zero":
            kept[name][row.name] = (row.options[o].name,)
    return kept


def _limit(spent: np.ndarray, limit: float, upper: np.ndarray, lines: list[Line]) -> None:
    """Adds the line that bounds a cost, spent (n,); sets `upper` (n,) to 0 for what is too dear."""
    most = limit + SLACK * abs(limit)
    upper[spent > most] = 0
    if 0 < most < np.inf:
        unit, whole = most / LIMIT, spent.astype(np.int64)
        if (spent == whole).all() and np.gcd.reduce(whole) > unit:
            unit = float(np.gcd.reduce(whole))  # all sums are multiples of it
            most = unit * (most // unit + 0.5)
        lines.append((dict(enumerate(np.minimum(spent, most) / unit)), -np.inf, most / unit))


def _with_flows(choices: Mapping[str, Choice], first: int) -> Iterator[tuple[str, Choice, int]]:
    """Each choice with the column of its first flow, one flow per row, from column `first` on."""
    for name, choice in choices.items():
        yield name, choice, first
        first += len(choice.rows)


def _structure(
    name: str, choice: Choice, structure: Structure, columns: Sequence[Column], flow: int
) -> list[Line]:
    """Constraints on a choice: options per row, rows per target, a connected output.

    Connected: a flow of 1 reaches the output from the inputs over kept rows. The flow of row r is
    the column `flow + r`.
    """
    on: list[list[int]] = [[] for _ in choice.rows]
    real: list[list[int]] = [[] for _ in choice.rows]
    for column, (owner, r, o) in enumerate(columns):
        if owner == name:
            on[r].append(column)
            if choice.rows[r].options[o].kind != "zero":
                real[r].append(column)
    lines: list[Line] = []
    for r in range(len(choice.rows)):
        lines.append((dict.fromkeys(on[r], 1.0), float(structure.drops and bool(on[r])), 1.0))
        lines.append((dict.fromkeys(real[r], 1.0) | {flow + r: -1.0}, 0.0, np.inf))
    arriving: dict[int, float] = {}
    for target in choice.targets:
        into = choice.into(target)
        if not structure.drops:
            count = min(structure.keep[target], max(1, sum(bool(real[r]) for r in into)))
            lines.append(({column: 1.0 for r in into for column in real[r]}, count, count))
        net = {flow + r: 1.0 for r in into} | {flow + r: -1.0 for r in choice.out_of(target)}
        lines.append((net, 0.0, np.inf))
        if target in choice.outputs:
            for column, sign in net.items():
                arriving[column] = arriving.get(column, 0.0) + sign
    return [*lines, (arriving, 1.0, np.inf)]


def _solve(cost: np.ndarray, upper: np.ndarray, lines: Sequence[Line]) -> np.ndarray | None:
    """The binary vector of smallest cost, at most `upper`; None if the lines are infeasible.

    cost (n,), upper (n,); columns of `lines` from n on are real numbers from 0 to 1 without cost.
    HiGHS accepts 0.999999 as an integer; a vector that violates a line after rounding is forbidden,
    and the programme is solved again.

    Raises:
        RuntimeError: HiGHS found no solution.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # the import takes a second
    from scipy.sparse import csr_array

    n = len(cost)
    entries = [(r, c, value) for r, (line, _, _) in enumerate(lines) for c, value in line.items()]
    r, c, value = zip(*entries, strict=True)
    free = np.zeros(max(c) + 1 - n)
    matrix = csr_array((value, (r, c)), shape=(len(lines), n + len(free)))
    low, high = (np.array([line[side] for line in lines]) for side in (1, 2))
    result = milp(
        np.concatenate([cost, free]),
        integrality=np.concatenate([np.ones(n), free]),
        bounds=Bounds(0, np.concatenate([upper, free + 1])),
        constraints=LinearConstraint(matrix, low, high),
        options={"mip_rel_gap": 0},
    )
    if result.status == 2:
        return None
    if result.x is None:
        raise RuntimeError(f"budget: the solver gave up: {result.message}")
    chosen = np.round(result.x[:n])
    sums = matrix @ np.concatenate([chosen, result.x[n:]])
    if (sums < low - ROUNDING).any() or (sums > high + ROUNDING).any():
        forbidden = dict(enumerate(2 * chosen - 1))  # any other vector is at least 1 below the sum
        return _solve(cost, upper, [*lines, (forbidden, -np.inf, chosen.sum() - 1)])
    return chosen
