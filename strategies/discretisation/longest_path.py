"""A discrete network read as the path of the largest weight through a graph: what `strongest` does
where the rows of a choice are linked. sharpDARTS.

Source: Hundt et al. 2019, arXiv:1903.09900, and its public code, which asks a graph library.
"""

from torch import Tensor

from search_spaces.choice import Choice, Option
from strategies.shares import real_options, weighed

Path = tuple[float, tuple[Option, ...]]  # the sum of its weights, and the options


def longest_path(
    choice: Choice, gates: Tensor, factors: Tensor | None, alive: Tensor
) -> dict[str, tuple[str, ...]]:
    """One option in every row, each of which begins where the one before ends, with the largest sum
    of gates times factors.

    Rows follow one another, and options are the edges of the graph; dynamic programming finds the
    path. Where all options fit each other (`Option.follows`), each row keeps its largest gate. Ties
    go to the first option of the first row. The sum of gates is the public code's; it is not the
    logarithm of a probability.

    Raises:
        ValueError: rows that do not follow one another, or no path of options that are alive.
    """
    if choice.targets != tuple(range(1, len(choice.rows) + 1)):
        raise ValueError("longest_path: expected rows one after the other, found rows that compete")
    values, usable = weighed(gates, factors).tolist(), (alive & real_options(choice)).tolist()
    paths: list[Path] = [(0.0, ())]
    for row, weights, on in zip(choice.rows, values, usable, strict=True):
        longer: dict[int | None, Path] = {}
        for option, weight, there in zip(row.options, weights, on, strict=False):  # padded
            fitting = [p for p in paths if option.follows(p[1][-1] if p[1] else None)]
            if there and fitting:
                total, options = max(fitting, key=lambda path: path[0])
                if option.end not in longer or total + weight > longer[option.end][0]:
                    longer[option.end] = (total + weight, (*options, option))
        paths = list(longer.values())
    if not paths:
        raise ValueError("no path of fitting options is left; prune less, or not at all")
    _, best = max(paths, key=lambda path: path[0])
    return {row.name: (option.name,) for row, option in zip(choice.rows, best, strict=True)}
