"""Found widths against the full network and against uniform scaling; expected costs against counts.

`python benchmarks/widths.py OUT tas|singlepath SEEDS [--distil] -- OVERRIDES...`, where OVERRIDES
are the data, the sizes and the recipe of all runs (`data=folder data.root=... space.channels=16
retrain.epochs=10`). Each seed searches and retrains three networks alike by `run.py`, each of which
reads the test split once:

- `found`, by the search;
- `full`, the costliest option in every row;
- `uniform`, the same at the number of channels (`space.channels`) whose multiply-accumulates are
  nearest to those of `found`.

`--distil` adds `distilled`, the found network with `retrain.teacher=full` (space `tas` alone).

`tas`: the expected cost E and the cost F of the most probable options, both at the end of the
search, against the multiply-accumulates of the final network. `singlepath`: the latency R by a
table of single options (`task=measure_latency`; the search has the same one, `uniform` one of its
own channels) against the latency of the whole network, in passes of equally many images.

Latencies are wall-clock time: other work on the machine falsifies them. To measure them again when
it is quiet, remove `OUT/latency*` and `OUT/seed*/*/latency.json`; the search keeps the R it had.

Prints mean, deviation and every seed, and writes `OUT/rows.csv`. A repeated command goes on where
it stopped; what was measured is not measured again.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archsmith.result.latency import measure_latency  # noqa: E402
from archsmith.train.runtime import Runtime  # noqa: E402
from search_spaces.architecture import Architecture, Choices  # noqa: E402
from search_spaces.mbconv import mbconv  # noqa: E402
from search_spaces.resnets import tas  # noqa: E402
from search_spaces.space import Space  # noqa: E402
from supernets.costs import macs  # noqa: E402
from supernets.final_costs import final_costs  # noqa: E402
from supernets.latency_table import latency_cost  # noqa: E402
from supernets.network import final_network  # noqa: E402

Row = dict[str, Any]
FAMILIES = {"tas": tas, "mbconv": mbconv}
SPACES = {"tas": "tas", "singlepath": "mbconv"}
ALIKE = ["retrain.layers=null", "retrain.channels=null", "export.formats=[]"]
FIELDS = (
    "seed", "row", "channels", "test_accuracy", "macs", "parameters", "expected_macs",
    "most_probable_macs", "target_macs", "expected_error", "most_probable_error",
    "latency_ms", "predicted_ms", "measured_ms", "low_ms", "high_ms", "latency_error",
)  # fmt: skip
ERRORS = {"expected_macs": "expected_error", "most_probable_macs": "most_probable_error"}
SIZES = {  # column -> its heading, a factor, and digits
    "test_accuracy": ("test accuracy, %", 100, 2),
    "macs": ("multiply-accumulates, 10^6", 1e-6, 3),
    "parameters": ("parameters, 10^3", 1e-3, 1),
    "channels": ("channels", 1, 0),
}
COSTS = {  # likewise
    "target_macs": ("target, 10^6", 1e-6, 3),
    "expected_macs": ("E, 10^6", 1e-6, 3),
    "expected_error": ("E against the count, %", 1, 1),
    "most_probable_macs": ("F, 10^6", 1e-6, 3),
    "most_probable_error": ("F against the count, %", 1, 1),
    "latency_ms": ("R in the search, ms", 1, 3),
    "predicted_ms": ("predicted, ms", 1, 3),
    "measured_ms": ("measured, ms", 1, 3),
    "latency_error": ("predicted against measured, %", 1, 1),
}


class Runs(NamedTuple):
    """Where runs are, and what all of them are given."""

    out: Path
    common: Sequence[str]

    def run(self, folder: Path, *overrides: str) -> dict[str, Any]:
        """Runs `run.py` in a folder, which goes on or finds itself finished: its results."""
        command = [
            sys.executable, str(ROOT / "run.py"), f"hydra.run.dir={folder}", *self.common, *ALIKE,
            *overrides,
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads((folder / "results.json").read_text())
        return found

    def table(self, channels: int | None = None) -> Path:
        """A folder with latencies of single options, of the search or at so many channels."""
        folder = self.out / ("latency" if channels is None else f"latency-{channels}")
        if not (folder / "latency.csv").is_file():
            sized = [] if channels is None else [f"space.channels={channels}"]
            self.run(folder, "task=measure_latency", *sized)
        return folder


def space_of(architecture: Architecture) -> Space:
    settings = {key: value for key, value in architecture.space.items() if key != "name"}
    return FAMILIES[architecture.space["name"]](**settings)


def counted(architecture: Architecture) -> int:
    """Multiply-accumulates of the final network for one image."""
    with torch.device("meta"):
        return macs(final_network(space_of(architecture), architecture))


def largest(space: Space) -> Choices:
    """The costliest option in every row."""
    if space.unpruned is not None:
        return Architecture.of(space, space.unpruned).choices
    tables = final_costs(space)["macs"].tables
    return {
        name: {
            row.name: (row.names[int(costs[: len(row.names)].argmax())],)
            for row, costs in zip(choice.rows, tables[name], strict=True)
        }
        for name, choice in space.choices.items()
    }


def uniform(full: Architecture, wanted: int) -> Architecture:
    """The full network at the number of channels, up to its own, whose count is nearest to the
    wanted one; counts rise with the channels."""
    space = space_of(full)
    sizes = range(1, space.settings["channels"] + 1)

    def sized(channels: int) -> Architecture:
        return Architecture.of(space.resize(channels=channels), full.choices)

    at = bisect_left(sizes, wanted, key=lambda channels: counted(sized(channels)))
    near = [sized(channels) for channels in sizes[max(0, at - 1) : at + 1]]
    return min(near, key=lambda one: abs(counted(one) - wanted))


def measured(architecture: Architecture, folder: Path, table: Path) -> dict[str, float]:
    """Predicted and measured latency in ms, and the error in %, as the table was measured: device,
    runtime, images per pass. Kept in `latency.json` of a folder."""
    file, space = folder / "latency.json", space_of(architecture)
    if not file.is_file():
        settings = json.loads((table / "config.json").read_text())
        runtime = {key: value for key, value in settings["runtime"].items() if key[0] != "_"}
        device = json.loads((table / "results.json").read_text())["device"].split()[0]
        started = Runtime(**runtime).start(device, seed=0)
        net = final_network(space, architecture)
        found = measure_latency(net, started, settings["budget"]["latency_batch"])
        file.write_text(json.dumps(found.to_json()) + "\n")
    taken = json.loads(file.read_text())
    predicted = latency_cost(space, table / "latency.csv").of(architecture, space)
    return {
        "predicted_ms": predicted,
        "measured_ms": taken["median"],
        "low_ms": taken["low"],
        "high_ms": taken["high"],
        "latency_error": error(predicted, taken["median"]),
    }


def error(predicted: float, true: float) -> float:
    """In %."""
    return 100 * (predicted / true - 1)


def costs(searched: Mapping[str, float], count: int) -> dict[str, float]:
    """The costs that a search recorded, and the errors in % of multiply-accumulates."""
    counts = {name: value for name, value in searched.items() if name in ERRORS}
    return {**searched, **{ERRORS[name]: error(value, count) for name, value in counts.items()}}


def rows_of(runs: Runs, method: str, seed: int, *, distil: bool) -> list[Row]:
    """The rows of one seed."""
    folder, seeded = runs.out / f"seed{seed}", f"seed={seed}"
    priced = []
    if method == "singlepath":
        priced.append(f"strategy.losses.latency.table={runs.table() / 'latency.csv'}")
    searched = runs.run(folder / "search", "task=search", seeded, *priced)
    found = Architecture.load(folder / "search" / "architecture.json")
    space = space_of(found)
    full = Architecture.of(space, largest(space))
    networks = {"found": found, "full": full, "uniform": uniform(full, counted(found))}
    taught = dict.fromkeys(networks, "retrain.teacher=null")
    if distil:
        networks["distilled"], taught["distilled"] = found, "retrain.teacher=full"
    rows = []
    for name, architecture in networks.items():
        file = folder / f"{name}.json"
        architecture.save(file)
        results = runs.run(folder / name, f"architecture={file}", seeded, taught[name])
        row = {"seed": seed, "row": name, "channels": architecture.space["channels"]}
        row |= {key: results[key] for key in ("test_accuracy", "macs", "parameters")}
        if method == "singlepath":
            smaller = row["channels"] != found.space["channels"]
            table = runs.table(row["channels"] if smaller else None)
            row |= measured(architecture, folder / name, table)
        if name == "found":
            row |= costs(searched["searched_costs"], row["macs"])
        rows.append(row)
        print(row, flush=True)
    return rows


def show(rows: Sequence[Row], columns: Mapping[str, tuple[str, float, int]]) -> None:
    """Prints a Markdown table of the columns that have values: mean and deviation, every seed."""
    there = {name: how for name, how in columns.items() if any(name in row for row in rows)}
    headings = [heading for heading, _, _ in there.values()]
    print("\n|", " | ".join(["network", *headings]), "|")
    print("|" + "---|" * (1 + len(there)))
    for network in dict.fromkeys(row["row"] for row in rows):
        cells = []
        for name, (_, factor, digits) in there.items():
            seen = [factor * row[name] for row in rows if row["row"] == network and name in row]
            cells.append(spread(seen, digits))
        print("|", " | ".join([network, *cells]), "|")


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± deviation (every value)."""
    if len(values) < 2:
        return " ".join(f"{value:.{digits}f}" for value in values)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    every = " ".join(f"{value:.{digits}f}" for value in values)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f} ({every})"


def main() -> None:
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("method", choices=SPACES)
    parser.add_argument("seeds", type=int)
    parser.add_argument("--distil", action="store_true", help="only with tas")
    options = parser.parse_args(sys.argv[1:split])
    if options.distil and options.method != "tas":
        parser.error("--distil: only space tas has an unpruned network to learn from")
    names = [f"strategy={options.method}", f"space={SPACES[options.method]}"]
    runs = Runs(options.out, [*names, *sys.argv[split + 1 :]])
    rows = [
        row
        for seed in range(options.seeds)
        for row in rows_of(runs, options.method, seed, distil=options.distil)
    ]
    with open(options.out / "rows.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    show(rows, SIZES)
    show(rows, COSTS)


if __name__ == "__main__":
    main()
