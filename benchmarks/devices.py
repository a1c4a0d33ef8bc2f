"""One search for many devices: its share of each device's true front, beside NSGA-II and random.

`python benchmarks/devices.py OUT [--column cifar10] [--seeds 0 5] [--only METHOD ...]` with
`nats_bench_tss.csv` and `nb201_latency.csv.xz` in `ARCHSMITH_DATA` (by default `../shared/data`).
Costs are those of the tables, latency and error, each scaled to [0, 1] by its range over all 15,625
architectures; the reference is (1, 1), the latency of the slowest and the accuracy of the worst
one. `hypervolume` is the area that a method's front dominates, as a share of that of the true
front.

`pareto` is one search of Q queries for all D devices; `random` Q architectures; `nsga2` one search
of Q queries for each device (D Q in all), and `nsga2, shared` of Q / D each. All have the settings
of their classes, which are those of `conf/strategy`. A repeated command goes on after the last
seed.
"""

import argparse
import csv
import itertools
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search_spaces.genotype import to_nasbench201
from search_spaces.nasbench201 import CANDIDATES, nasbench201
from strategies.fronts import hypervolume
from strategies.searchers.nsga2 import NSGA2
from strategies.searchers.on_devices import OnDevices
from strategies.searchers.pareto import Pareto
from strategies.searchers.random import RandomSearch
from supernets.device_table import DeviceTable, device_table

DATA = Path(os.environ.get("ARCHSMITH_DATA", "../shared/data"))
LATENCIES = DATA / "nb201_latency.csv.xz"


class Truth:
    """All architectures: scores (A,), milliseconds (A, D), and the true hypervolumes (D,)."""

    def __init__(self, column: str) -> None:
        self.space = nasbench201(
            layers=17, nodes=3, channels=16, candidates=list(CANDIDATES), operations={},
            input_shape=(3, 32, 32), classes=10,
        )  # fmt: skip
        with open(DATA / "nats_bench_tss.csv", newline="", encoding="utf-8") as file:
            found = {row["architecture"]: float(row[column]) for row in csv.DictReader(file)}
        self.table: DeviceTable = device_table(LATENCIES)
        self.scores = np.array([found[name] / 100 for name in self.table.rows])
        every = range(len(self.scores))
        self.volumes = [self.volume(list(every), d) for d in range(len(self.table.devices))]

    def points(self, members: list[int], device: int) -> np.ndarray:
        """(N, 2): latency and error, scaled by their ranges."""
        cost = np.column_stack([self.table.milliseconds[:, device], 1 - self.scores])
        return ((cost - cost.min(0)) / np.ptp(cost, 0))[members]

    def volume(self, members: list[int], device: int) -> float:
        return hypervolume(self.points(members, device), (1.0, 1.0))

    def shares(self, members: list[int]) -> list[float]:
        """The share of the true hypervolume, per device."""
        return [self.volume(members, d) / v for d, v in enumerate(self.volumes)]


def asked(searcher: OnDevices | RandomSearch, queries: int, truth: Truth) -> list[int]:
    """Lines of the architectures that a searcher asks for."""
    found = []
    for _ in range(queries):
        one = searcher.ask()
        found.append(truth.table.rows[to_nasbench201(one)])
        searcher.tell(one, float(truth.scores[found[-1]]))
    return found


def by_nsga2(truth: Truth, queries: int) -> list[float]:
    """The share of each device's front, from a search of its own."""
    found = []
    for d, name in enumerate(truth.table.devices):
        searcher = NSGA2(truth.space, table=str(LATENCIES), device=name)
        found.append(truth.shares(asked(searcher, queries, truth))[d])
    return found


def measured(truth: Truth, method: str, queries: int, seed: int) -> tuple[list[float], float]:
    """Shares by device, and seconds of the processor (one thread)."""
    torch.manual_seed(seed)
    began = time.process_time()
    if method == "pareto":
        searcher = Pareto(truth.space, table=str(LATENCIES))
        shares = truth.shares(asked(searcher, queries, truth))
    elif method == "random":
        shares = truth.shares(asked(RandomSearch(truth.space), queries, truth))
    elif method == "nsga2, shared":
        shares = by_nsga2(truth, queries // len(truth.table.devices))
    else:
        shares = by_nsga2(truth, queries)
    return shares, time.process_time() - began


METHODS = ("pareto", "random", "nsga2, shared", "nsga2")
QUERIES = (100, 300)


def main(out: Path, column: str, seeds: range, methods: Sequence[str]) -> None:
    torch.set_num_threads(1)
    truth, path = Truth(column), out / f"devices-{column}.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    out.mkdir(parents=True, exist_ok=True)
    for method, queries in itertools.product(methods, QUERIES):
        runs = found.setdefault(f"{method}, {queries}", {})
        for seed in (seed for seed in seeds if str(seed) not in runs):
            shares, seconds = measured(truth, method, queries, seed)
            runs[str(seed)] = {"hypervolume": shares, "seconds": seconds}
            path.write_text(json.dumps(found) + "\n")
    shown(found, truth.table.devices)


def shown(found: dict[str, Any], devices: Sequence[str]) -> None:
    """Prints means over seeds, by device and in all."""
    means = {}
    for name, runs in found.items():
        shares = 100 * np.array([run["hypervolume"] for run in runs.values()])  # (seeds, D)
        means[name] = shares.mean(0)
        seconds = statistics.mean(run["seconds"] for run in runs.values())
        print(
            f"{name:20s} mean {shares.mean():.2f} +- {shares.mean(1).std(ddof=1):.2f}, worst "
            f"device {means[name].min():.2f}, worst run of a device {shares.min():.2f}, "
            f"{len(shares)} seeds, {seconds:.1f} s"
        )
    for d, device in enumerate(devices):
        print(f"{device:16s}", *(f"{mean[d]:7.2f}" for mean in means.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--column", default="cifar10", help="of the accuracies")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 5), help="the first, and the end")
    parser.add_argument("--only", nargs="*", default=METHODS, help="methods")
    given = parser.parse_args()
    main(given.out, given.column, range(*given.seeds), given.only)
