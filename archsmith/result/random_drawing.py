"""What a benchmark's table has without a search: random cells, and some that are easily named."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from archsmith.data.benchmark import without_search
from archsmith.result.statistics import chance, mean_of_best

DRAWS = (3, 10)  # random architectures of which the table's best is taken
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Named(NamedTuple):
    """Cells of a kind: their number, mean in %, and the share of the table below that mean."""

    number: int
    mean: float
    above: float


class RandomDrawing:
    """Facts of a table, and the chance that as many architectures drawn from it have so high a mean
    as a group of runs; accuracies are in %.

    Args:
        table: architecture -> accuracy.
        groups: name -> accuracies of its runs.
    """

    def __init__(self, table: Mapping[str, float], groups: Mapping[str, Sequence[float]]):
        values = np.array([*table.values()])
        self.size, self.mean, self.most = len(values), float(values.mean()), float(values.max())
        self.quantiles = {q: float(np.quantile(values, q)) for q in QUANTILES}
        self.best = {n: mean_of_best(values.tolist(), n) for n in DRAWS}
        self.named = {
            said: Named(len(found), fmean(found), float((values < fmean(found)).mean()))
            for said, found in without_search(table).items()
            if found
        }
        self.chances = {name: chance(values.tolist(), group) for name, group in groups.items()}
