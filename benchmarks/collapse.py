"""Which searches collapse to skip connections: skips and eigenvalue by epoch, over seeds.

`python benchmarks/collapse.py OUT --space s2 --strategies darts rdarts_es rdarts_l2 [--seeds 3]
[--own STRATEGY OVERRIDE... ...] -- OVERRIDES...` searches with each strategy and seed. OVERRIDES
(data, sizes, epochs) are the same for all, `--own` has those of one strategy. Writes, below OUT:

- `collapse.csv`: after each epoch, the skips that the normal cell would keep, the largest
  eigenvalue of the Hessian in the alphas, and the accuracies of the supernet and of the discretised
  network, as fractions.
- `collapse.md`: per strategy, the skips of the resulting cell, and which epoch it is taken from.
- `collapse.svg`: mean skips and eigenvalues by epoch, in a band from the least to the largest seed,
  over the seeds that still search; the end of one that stops early is a dot.

A repeated command goes on where it stopped. OUT is for one set of overrides.
"""

import argparse
import csv
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import instantiate
from rows import swept

from archsmith.drawing.charts import TICKS, round_limits
from archsmith.drawing.render import render
from archsmith.result.runs import FinishedRun
from archsmith.search.diagnosis import kept_options
from search_spaces.architecture import Architecture
from search_spaces.space import Space

MEASURED = {  # column -> metric of each epoch
    "eigenvalue": "alpha_eigenvalue",
    "supernet_accuracy": "supernet_accuracy",
    "discretised_accuracy": "discretised_accuracy",
}
FIELDS = ("strategy", "seed", "epoch", "skips", *MEASURED)
HEADER = (
    "strategy", "skips of the result, by seed", "mean", "of", "eigenvalue, first epoch",
    "last epoch", "epochs run", "taken from epoch", "times gone back", "processor minutes",
)  # fmt: skip


class Course(NamedTuple):
    """A search: lists have an entry per epoch that counts, in order."""

    seed: int
    skips: list[int]
    measured: dict[str, list[float]]  # by column of MEASURED
    result: int  # skips in the resulting normal cell
    kept: int  # options that the resulting normal cell keeps
    taken: int  # the epoch of the result, from 1
    returns: int  # how often the search went back to an earlier epoch
    minutes: float  # of processor time

    @property
    def epochs(self) -> int:
        return len(self.skips)


def course(run: FinishedRun) -> Course:
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").open()]
    lines = [line for line in lines if line["phase"] == "search"]
    result = Architecture.load(run.folder / "architecture.json")
    shapes = {name: result.space[name] for name in ("input_shape", "classes")}
    space = instantiate(run.config["space"], _convert_="all")(**shapes)
    files = [run.folder / "architectures" / f"epoch_{line['step']:03d}.json" for line in lines]
    cells = [kinds(space, Architecture.load(file)) for file in files]
    kept = kinds(space, result)
    return Course(
        run.seed,
        [cell.count("identity") for cell in cells],
        {name: [line[metric] for line in lines] for name, metric in MEASURED.items()},
        kept.count("identity"),
        len(kept),
        int(result.meta["epoch"]) + 1,
        (run.folder / "run.log").read_text().count("search: back from epoch"),
        run.results["cpu_seconds"]["search"] / 60,
    )


def kinds(space: Space, found: Architecture) -> list[str]:
    """The kinds of the options that the normal cell keeps."""
    return [option.kind for option in kept_options(space, found, space.body)]


def write_epochs(courses: Mapping[str, Sequence[Course]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for name, seeds in courses.items():
            for one in seeds:
                columns = (one.skips, *one.measured.values())
                for epoch, values in enumerate(zip(*columns, strict=True), start=1):
                    numbers = [format(value, ".6g") for value in values]
                    writer.writerow([name, one.seed, epoch, *numbers])


def table(courses: Mapping[str, Sequence[Course]]) -> str:
    """A row per strategy, in Markdown; eigenvalues and minutes are means over seeds."""

    def mean(values: Iterable[float], form: str) -> str:
        return format(statistics.fmean(values), form)

    def listed(values: Iterable[int]) -> str:
        return " ".join(map(str, values))

    rows = [
        [
            name,
            listed(one.result for one in seeds),
            mean((one.result for one in seeds), ".1f"),
            listed(sorted({one.kept for one in seeds})),
            mean((one.measured["eigenvalue"][0] for one in seeds), ".3g"),
            mean((one.measured["eigenvalue"][-1] for one in seeds), ".3g"),
            listed(one.epochs for one in seeds),
            listed(one.taken for one in seeds),
            listed(one.returns for one in seeds),
            mean((one.minutes for one in seeds), ".1f"),
        ]
        for name, seeds in courses.items()
    ]
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def band(curves: Sequence[Sequence[float]], longest: int) -> dict[str, Any]:
    """Mean, least and largest of the curves that reach an epoch, where epoch 0 has no value, and
    the ends of those that are shorter than `longest`."""
    reached = [
        [curve[epoch] for curve in curves if epoch < len(curve)]
        for epoch in range(max(map(len, curves)))
    ]
    return {
        "mean": [None, *map(statistics.fmean, reached)],
        "low": [None, *map(min, reached)],
        "high": [None, *map(max, reached)],
        "ends": [(len(curve), curve[-1]) for curve in curves if len(curve) < longest],
    }


def drawn(courses: Mapping[str, Sequence[Course]]) -> str:
    """Skips and eigenvalues by epoch, as SVG."""
    every = [one for seeds in courses.values() for one in seeds]
    longest, most = max(one.epochs for one in every), max(one.kept for one in every)
    skips = {name: band([one.skips for one in seeds], longest) for name, seeds in courses.items()}
    eigenvalues = {
        name: band([one.measured["eigenvalue"] for one in seeds], longest)
        for name, seeds in courses.items()
    }
    largest = [value for one in every for value in one.measured["eigenvalue"]]
    panels = [
        (f"skips among the {most} kept in the normal cell", skips, (0, in_ticks(most))),
        ("largest eigenvalue in the alphas", eigenvalues, round_limits([0.0, *largest])),
    ]
    return render("panels.svg.j2", panels=panels, across="epochs", steps=in_ticks(longest))


def in_ticks(number: int) -> int:
    """The number rounded up so that all ticks of an axis from 0 are whole numbers."""
    return TICKS * math.ceil(number / TICKS)


def main() -> None:
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--space", default="s2")
    parser.add_argument("--strategies", nargs="+", default=["darts", "rdarts_es", "rdarts_l2"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--own", nargs="+", action="append", default=[])
    options = parser.parse_args(sys.argv[1:split])
    own = {name: overrides for name, *overrides in options.own}
    if unknown := sorted(set(own) - set(options.strategies)):
        parser.error(f"--own {unknown[0]}: not among --strategies {' '.join(options.strategies)}")
    common = [
        "task=search", f"space={options.space}", "search.curvature=true", *sys.argv[split + 1 :],
    ]  # fmt: skip
    rows = {name: [f"strategy={name}", *own.get(name, [])] for name in options.strategies}
    runs = swept(options.out, rows, options.seeds, common)
    courses = {name: [course(run) for run in found] for name, found in runs.items()}
    write_epochs(courses, options.out / "collapse.csv")
    (options.out / "collapse.md").write_text(table(courses))
    (options.out / "collapse.svg").write_text(drawn(courses))
    print(table(courses), end="")


if __name__ == "__main__":
    main()
