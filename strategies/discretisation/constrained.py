"""The best architecture within cost limits, found exactly by an integer linear programme.

The score of an architecture is the sum of the log gates of its candidates, so without limits the
result equals that of the discretisation rule. The solver is HiGHS (Huangfu & Hall 2018,
doi:10.1007/s12532-017-0130-5), by `scipy.optimize.milp`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from search_spaces.space import Cell, Space
from strategies.discretisation.decisions import Structure, every_candidate

Tables = Mapping[str, Tensor]  # group -> (E, O)
Choices = dict[str, dict[str, tuple[str, ...]]]
Column = tuple[str, int, int]  # group, edge, candidate
Row = tuple[Mapping[int, float], float, float]  # column -> coefficient; lower and upper bound
SLACK = 1e-9  # tolerance of a cost, relative to its limit
TIE = 1e-7  # of scores, relative to the largest log gate: the resolution of HiGHS
# HiGHS has an absolute tolerance of 1e-6, hence the scaling.
LIMIT, SCORE = 1e5, 1e3  # scaled value of a limit and of the largest log gate
ROUNDING = 1e-5  # allowed violation of a row after rounding


def within(
    space: Space,
    structures: Mapping[str, Structure],
    gates: Tables,
    alive: Tables,
    costs: Sequence[Tables],
    limits: Sequence[float],
) -> Choices | None:
    """The choices of largest score with each sum of `costs` within its limit; None if there are
    none.

    gates, alive and each of costs: group -> (E, O); costs are not negative. The output of every
    cell depends on its input. Ties (closer than TIE) go to lower edges and candidates,
    deterministically.
    """
    scores = {name: _log(table) for name, table in gates.items()}
    return _best(space.groups, structures, scores, alive, costs, limits)


def cheapest(space: Space, structures: Mapping[str, Structure], costs: Tables) -> Choices:
    """The choices of smallest cost. costs: group -> (E, O)."""
    scores = {name: -table for name, table in costs.items()}
    alive = {name: every_candidate(cell) for name, cell in space.groups.items()}
    found = _best(space.groups, structures, scores, alive, [], [])
    assert found is not None
    return found


def connected(cell: Cell, gates: Tensor, alive: Tensor) -> dict[str, tuple[str, ...]]:
    """The best cell whose output depends on its input: the largest sum of log gates, with `none`.

    gates (E, O), alive (E, O). For rules under which `none` may win on so many edges that input and
    output are disconnected; an edge keeps one candidate, or none.

    Raises:
        ValueError: no path of alive candidates leads from the input to the output.
    """
    one = {"cell": Structure({}, drops=True)}
    found = _best({"cell": cell}, one, {"cell": _log(gates)}, {"cell": alive}, [], [])
    if found is None:
        raise ValueError(
            "no way from a cell's input to its output is left; prune less, or "
            "give the space more candidates"
        )
    return found["cell"]


def _log(gates: Tensor) -> Tensor:
    return gates.double().clamp_min(torch.finfo(torch.float32).tiny).log()


def _best(
    cells: Mapping[str, Cell],
    structures: Mapping[str, Structure],
    scores: Tables,
    alive: Tables,
    costs: Sequence[Tables],
    limits: Sequence[float],
) -> Choices | None:
    """The choices of largest score within the limits; None if there are none.

    A column of the programme is 1 if its candidate is chosen. A second solve breaks ties by the
    smallest sum of fixed weights that grow with the column.
    """
    columns = [
        (name, e, o)
        for name, cell in cells.items()
        for e, edge in enumerate(cell.edges)
        for o, candidate in enumerate(edge.candidates)
        if alive[name][e, o] and (structures[name].drops or candidate != "none")
    ]
    rows = _structure(cells, structures, columns)
    upper = np.ones(len(columns))

    def values(tables: Tables) -> np.ndarray:
        return np.array([float(tables[name][e, o]) for name, e, o in columns])

    for tables, limit in zip(costs, limits, strict=True):
        spent, most = values(tables), limit + SLACK * abs(limit)
        upper[spent > most] = 0
        if 0 < most < np.inf:
            unit, whole = most / LIMIT, spent.astype(np.int64)
            if (spent == whole).all() and np.gcd.reduce(whole) > unit:
                unit = float(np.gcd.reduce(whole))  # all sums are multiples of it
                most = unit * (most // unit + 0.5)
            rows.append((dict(enumerate(np.minimum(spent, most) / unit)), -np.inf, most / unit))
    score = values(scores)
    score *= SCORE / (np.abs(score).max(initial=0) or 1)
    chosen = _solve(-score, upper, rows)
    if chosen is None:
        return None
    rows.append((dict(enumerate(score)), score @ chosen - TIE * SCORE, np.inf))
    weights = np.random.default_rng(0).uniform(1, 2, len(columns)).cumsum()
    again = _solve(weights, upper, rows)
    choices: Choices = {name: {} for name in cells}
    for (name, e, o), on in zip(columns, chosen if again is None else again, strict=True):
        edge = cells[name].edges[e]
        if on and edge.candidates[o] != "none":
            choices[name][edge.name] = (edge.candidates[o],)
    return choices


def _structure(
    cells: Mapping[str, Cell], structures: Mapping[str, Structure], columns: Sequence[Column]
) -> list[Row]:
    """Constraints for an architecture: candidates per edge, inputs per node, a connected output.

    Connected: a flow of 1 reaches the output from the inputs over kept edges. The flows, one per
    edge, are the columns after `columns`.
    """
    rows: list[Row] = []
    flow = len(columns)
    for name, cell in cells.items():
        drops, keep = structures[name].drops, structures[name].keep
        on: list[list[int]] = [[] for _ in cell.edges]
        real: list[list[int]] = [[] for _ in cell.edges]
        for column, (group, e, o) in enumerate(columns):
            if group == name:
                on[e].append(column)
                if cell.edges[e].candidates[o] != "none":
                    real[e].append(column)
        for e in range(len(cell.edges)):
            rows.append((dict.fromkeys(on[e], 1.0), float(drops and bool(on[e])), 1.0))
            rows.append((dict.fromkeys(real[e], 1.0) | {flow + e: -1.0}, 0.0, np.inf))
        arriving: dict[int, float] = {}
        for node in cell.targets:
            into = cell.incoming(node)
            if not drops:
                count = min(keep[node], max(1, sum(bool(real[e]) for e in into)))
                rows.append(({column: 1.0 for e in into for column in real[e]}, count, count))
            net = {flow + e: 1.0 for e in into} | {flow + e: -1.0 for e in cell.outgoing(node)}
            rows.append((net, 0.0, np.inf))
            if cell.output == "concat" or node == cell.targets[-1]:
                for column, sign in net.items():
                    arriving[column] = arriving.get(column, 0.0) + sign
        rows.append((arriving, 1.0, np.inf))
        flow += len(cell.edges)
    return rows


def _solve(cost: np.ndarray, upper: np.ndarray, rows: Sequence[Row]) -> np.ndarray | None:
    """The binary vector of smallest cost, at most `upper`; None if the rows are infeasible.

    cost (n,), upper (n,); columns of `rows` from n on are real numbers from 0 to 1 without cost.
    HiGHS accepts 0.999999 as an integer; a choice that violates a row after rounding is forbidden,
    and the programme is solved again.

    Raises:
        RuntimeError: HiGHS found no solution.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # the import takes a second
    from scipy.sparse import csr_array

    n = len(cost)
    entries = [(r, c, value) for r, (row, _, _) in enumerate(rows) for c, value in row.items()]
    r, c, value = zip(*entries, strict=True)
    free = np.zeros(max(c) + 1 - n)
    matrix = csr_array((value, (r, c)), shape=(len(rows), n + len(free)))
    low, high = (np.array([row[side] for row in rows]) for side in (1, 2))
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
        forbidden = dict.fromkeys(np.flatnonzero(chosen).tolist(), 1.0)
        return _solve(cost, upper, [*rows, (forbidden, 0.0, len(forbidden) - 1.0)])
    return chosen
