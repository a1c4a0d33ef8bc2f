"""The best architecture whose costs stay within limits: a multiple-choice knapsack, solved exactly.

The score of an architecture is the sum of the log gates of what it keeps, so that without limits
it is what the discretisation rule reads. Bounded by its Lagrangian: Kellerer, Pferschy & Pisinger
2004, Knapsack Problems, chapter 11.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from search_spaces.architecture import reachable
from search_spaces.space import Space
from strategies.discretisation.decisions import (
    Option,
    Structure,
    decisions,
    every_candidate,
    undominated,
)
from strategies.shares import real_candidates

Tables = Mapping[str, Tensor]  # group -> (E, O)
Choices = dict[str, dict[str, tuple[str, ...]]]
MOST = 5000  # partial architectures looked at together; where more are left, the best by bound
SLACK = 1e-9  # of scores, and of costs relative to their limit


def within(
    space: Space,
    structures: Mapping[str, Structure],
    gates: Tables,
    alive: Tables,
    costs: Sequence[Tables],
    limits: Sequence[float],
) -> Choices | None:
    """The choices of largest score, each sum of `costs` at most its limit; None where none is.

    The output of every cell depends on its input.
    """
    found = _connected(space, structures, gates, alive, costs, limits)
    return None if found is None else found[1]


def _connected(
    space: Space,
    structures: Mapping[str, Structure],
    gates: Tables,
    alive: Tables,
    costs: Sequence[Tables],
    limits: Sequence[float],
) -> tuple[float, Choices] | None:
    """The score and the choices. Where `none` cuts a cell off, one of the edges from its inputs
    goes without, each in turn: the nodes of such a cell are all its output.
    """
    found = _best(space, structures, gates, alive, costs, limits)
    if found is None:
        return None
    cut = [n for n, cell in space.groups.items() if not reachable(cell, found[1][n])]
    if not cut:
        return found
    name, cell = cut[0], space.groups[cut[0]]
    real = real_candidates(cell)
    tries = []
    for e, edge in enumerate(cell.edges):
        if edge.source < cell.inputs and (alive[name][e] & real[e]).any():
            on = alive[name].clone()
            on[e] &= real[e]
            tries.append(_connected(space, structures, gates, {**alive, name: on}, costs, limits))
    return max((one for one in tries if one is not None), key=lambda one: one[0], default=None)


def _best(
    space: Space,
    structures: Mapping[str, Structure],
    gates: Tables,
    alive: Tables,
    costs: Sequence[Tables],
    limits: Sequence[float],
) -> tuple[float, Choices] | None:
    every: list[list[Option]] = []
    owners: list[str] = []
    for name, cell in space.groups.items():
        tables = [cost[name] for cost in costs]
        found = decisions(cell, structures[name], gates[name], alive[name], tables)
        every += found
        owners += [name] * len(found)
    picked = best_within(every, limits)
    if picked is None:
        return None
    choices: Choices = {name: {} for name in space.groups}
    for name, option in zip(owners, picked, strict=True):
        choices[name] |= {edge: (candidate,) for edge, candidate in option.kept}
    return sum(option.score for option in picked), choices


def cheapest(space: Space, structures: Mapping[str, Structure], costs: Tables) -> Choices:
    """The choices of smallest cost: those of largest score where gates are exp(-cost)."""
    most = max(1.0, *(float(table.max()) for table in costs.values()))
    gates = {name: torch.exp(-table / most) for name, table in costs.items()}
    alive = {name: every_candidate(cell) for name, cell in space.groups.items()}
    limit = sum(float(table.sum()) for table in costs.values())
    found = within(space, structures, gates, alive, [costs], [limit])
    assert found is not None
    return found


def best_within(
    options: Sequence[Sequence[Option]], limits: Sequence[float]
) -> list[Option] | None:
    """One option of each decision, of largest total score within the limits; None where none is.

    A partial choice is left when its costs cannot be met any more, when another one is no worse in
    anything, or when its Lagrangian bound is below what is known to be possible.
    """
    fewer = [undominated(decision) for decision in options]
    if not all(fewer):
        return None
    most = np.array(limits) + SLACK * np.abs(limits)
    weights = 1 / np.maximum(np.abs(most), SLACK)
    price, known = _price(fewer, most, weights)
    floor = -np.inf if known is None else sum(option.score for option in known) - SLACK
    ends = [max(_priced(o, price, weights) for o in decision) for decision in fewer]
    least = [np.min([option.costs for option in decision], 0) for decision in fewer]
    states: list[tuple[Option, tuple[int, ...]]] = [(Option(costs=(0.0,) * len(most)), ())]
    for d, decision in enumerate(fewer):
        rest, later = sum(least[d + 1 :], np.zeros(len(most))), sum(ends[d + 1 :])
        grown: dict[Option, tuple[float, tuple[int, ...]]] = {}
        for before, path in states:
            for i, option in enumerate(decision):
                total = before + option
                room = most - np.array(total.costs)
                bound = total.score + later + price * float(weights @ room)
                if (room >= rest).all() and bound >= floor:
                    grown[total] = (bound, (*path, i))
        front = sorted(undominated(grown), key=lambda total: -grown[total][0])[:MOST]
        states = [(total, grown[total][1]) for total in front]
    if not states:
        return None
    _, path = max(states, key=lambda state: state[0].score)
    return [decision[i] for decision, i in zip(fewer, path, strict=True)]


def _price(
    options: Sequence[Sequence[Option]], most: np.ndarray, weights: np.ndarray
) -> tuple[float, list[Option] | None]:
    """The smallest price of cost at which the best by score less price is within the limits.

    Together with that choice; None where no price brings it within them.
    """

    def best(price: float) -> list[Option]:
        return [max(d, key=lambda o: _priced(o, price, weights)) for d in options]

    def fits(chosen: list[Option]) -> bool:
        return bool((np.sum([option.costs for option in chosen], 0) <= most).all())

    low, high = 0.0, 1e-3
    if fits(best(low)):
        return low, best(low)
    while not fits(best(high)):
        low, high = high, 4 * high
        if high > 1e9:
            return low, None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(best(middle)) else (middle, high)
    return high, best(high)


def _priced(option: Option, price: float, weights: np.ndarray) -> float:
    return option.score - price * float(weights @ np.array(option.costs))
