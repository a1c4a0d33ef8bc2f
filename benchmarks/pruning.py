"""How a pruning search cuts: candidates alive after each epoch, and what is left, over seeds.

`python benchmarks/pruning.py OUT [SEEDS] [OVERRIDES...]` searches with `strategy=goldnas` and its
defaults in the spaces `goldnas`, `darts` and `nasbench201` with that many seeds (10). It prints
candidates alive after each epoch as the median with minimum and maximum, how many seeds end in a
collapse (`results.json`: `degenerate`), and the accuracy of the discretised cells.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from rows import FinishedRun, swept

SPACES = ("goldnas", "darts", "nasbench201")


def alive(run: FinishedRun) -> list[int]:
    """Gates above zero after each epoch, over all groups."""
    tables = [json.loads(p.read_text()) for p in sorted((run.folder / "gates").glob("*.json"))]
    edges = [[edge for group in table.values() for edge in group.values()] for table in tables]
    return [sum(gate > 0 for edge in found for gate in edge.values()) for found in edges]


def said(numbers: Sequence[float], digits: int = 0) -> str:
    middle, low, high = statistics.median(numbers), min(numbers), max(numbers)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    common = ["strategy=goldnas", "task=search", *sys.argv[3:]]
    rows = {space: [f"space={space}"] for space in SPACES}
    for space, runs in swept(Path(sys.argv[1]), rows, seeds, common).items():
        of_epochs = zip_longest(*map(alive, runs))  # a search that has pruned enough stops
        counts = [[count for count in epoch if count is not None] for epoch in of_epochs]
        print(f"\n{space}: alive after each epoch, of the runs that have it")
        print("; ".join(f"{said(epoch)}, n = {len(epoch)}" for epoch in counts))
        collapsed = [run.seed for run in runs if run.results["degenerate"]]
        print(f"collapsed: {len(collapsed)} of {len(runs)}, seeds {collapsed}")
        accuracies = [100 * run.results["discretised_accuracy"] for run in runs]
        print(f"discretised accuracy: {said(accuracies, 1)}%")


if __name__ == "__main__":
    main()
