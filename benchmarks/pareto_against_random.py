"""The Pareto series of a pruning search against random pruning at equal multiply-accumulates.

`python benchmarks/pareto_against_random.py RUN [--draws N] [--points I ...] [--out DIR] --
OVERRIDES...`, where RUN is the folder of a finished `task=search`, and OVERRIDES are the data and
the recipe of retraining, the same for all (`data=folder data.root=... retrain=quick
retrain.epochs=10`). Each architecture of
`RUN/pareto.json` gets N twins whose candidates were cut in random order until they cost the same.
All are retrained alike by `run.py`, and read the test split once. Writes `series.csv` and
`series.svg`. A repeated command goes on where it stopped.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search_spaces.architecture import Architecture  # noqa: E402
from search_spaces.goldnas import goldnas  # noqa: E402
from strategies.searchers.random import pruned_at_random  # noqa: E402
from supernets.costs import candidate_macs, macs  # noqa: E402
from supernets.mixed_op import MixedOp  # noqa: E402
from supernets.network import final_network, supernet  # noqa: E402


def twins(kept: Architecture, draws: int) -> list[Architecture]:
    """Randomly pruned architectures of the same space and about the same cost."""
    space = goldnas(**{key: value for key, value in kept.space.items() if key != "name"})
    with torch.device("meta"):
        fixed = macs(final_network(space, kept))
    costs = candidate_macs(supernet(space, MixedOp))
    kept_cost = sum(
        int(costs[group][e, edge.names.index(name)])
        for group, cell in space.groups.items()
        for e, edge in enumerate(cell.edges)
        for name in kept.choices[group].get(edge.name, ())
    )
    assert fixed == kept.meta["macs"], "the model of costs and the counter disagree"
    return [
        pruned_at_random(space, costs, kept_cost, torch.Generator().manual_seed(seed))
        for seed in range(draws)
    ]


def retrained(architecture: Path, folder: Path, overrides: list[str]) -> dict[str, float]:
    """Size and test accuracy after retraining."""
    command = [
        sys.executable, str(ROOT / "run.py"), f"architecture={architecture}",
        f"hydra.run.dir={folder}", "export.formats=[]", *overrides,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results = json.loads((folder / "results.json").read_text())
    return {name: results[name] for name in ("macs", "parameters", "test_accuracy")}


def plot(rows: list[dict[str, float | str]], path: Path) -> None:
    """Test accuracy against multiply-accumulates; the random ones with their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for kind, colour in (("random", "#a85a00"), ("search", "#1f5fbf")):
        points = [row for row in rows if row["kind"] == kind]
        x = [float(row["macs"]) / 1e6 for row in points]
        y = [100 * float(row["test_accuracy"]) for row in points]
        axis.scatter(x, y, color=colour, label=f"pruned by {kind}")
        steps = sorted({row["point"] for row in points})
        groups = [[i for i, row in enumerate(points) if row["point"] == step] for step in steps]
        axis.plot(
            [statistics.fmean(x[i] for i in group) for group in groups],
            [statistics.fmean(y[i] for i in group) for group in groups],
            color=colour,
        )
    axis.set_xlabel("multiply-accumulates (millions)")
    axis.set_ylabel("test accuracy after retraining (%)")
    axis.legend()
    figure.savefig(path, format="svg")


def main() -> None:
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--points", type=int, nargs="*", help="of the series; all by default")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(sys.argv[1:split])
    out = options.out or options.run / "against_random"
    rows: list[dict[str, float | str]] = []
    series = json.loads((options.run / "pareto.json").read_text())["points"]
    for i in options.points or range(len(series)):
        point = series[i]
        kept = Architecture.load(options.run / point["architecture"])
        nets = [("search", kept), *(("random", twin) for twin in twins(kept, options.draws))]
        for j, (kind, architecture) in enumerate(nets):
            file = out / f"{i:02d}-{j}-{kind}.json"
            architecture.save(file)
            found = retrained(file, out / file.stem, sys.argv[split + 1 :])
            rows.append({"point": i, "kind": kind, **found})
            print(rows[-1], flush=True)
    with open(out / "series.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, out / "series.svg")


if __name__ == "__main__":
    main()
