"""One search for many devices: its share of each device's true front, beside NSGA-II and random.

`python benchmarks/devices.py OUT` with `nats_bench_tss.csv` and `nb201_latency.csv.xz` in
`ARCHSMITH_DATA` (by default `../shared/data`). Costs are those of the table: latency in its range
and error in its range, each scaled to [0, 1]; the reference is (1, 1), the slowest architecture
and the least accurate one. `hypervolume` is the area a method's front dominates, as a share of that
of the true front of all 15,625 architectures.

`pareto` is one search of Q queries for all D devices; `random` Q architectures; `nsga2` one search
of Q queries for each device (D Q in all), and `nsga2, shared` of Q / D each.
"""

import csv
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from search_spaces.genotype import from_nasbench201, to_nasbench201
from search_spaces.nasbench201 import CANDIDATES, nasbench201
from search_spaces.space import Space
from strategies.fronts import front, hypervolume
from strategies.searchers.nsga2 import NSGA2
from strategies.searchers.on_devices import OnDevices
from strategies.searchers.pareto import Pareto
from strategies.searchers.random import RandomSearch
from supernets.device_table import DeviceTable, device_table

DATA = Path(os.environ.get("ARCHSMITH_DATA", "../shared/data"))
LATENCIES = DATA / "nb201_latency.csv.xz"
QUERIES = [int(q) for q in os.environ.get("QUERIES", "100 300").split()]
SEEDS = int(os.environ.get("SEEDS", "5"))


class Truth:
    """All architectures: scores (A,), milliseconds (A, D), and the true hypervolumes (D,)."""

    def __init__(self) -> None:
        self.space = nasbench201(
            layers=17, nodes=3, channels=16, candidates=list(CANDIDATES), operations={},
            input_shape=(3, 32, 32), classes=10,
        )  # fmt: skip
        with open(DATA / "nats_bench_tss.csv", newline="", encoding="utf-8") as file:
            found = {row["architecture"]: float(row["cifar10"]) for row in csv.DictReader(file)}
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
    return [
        truth.shares(asked(NSGA2(truth.space, table=str(LATENCIES), device=name), queries, truth))[d]
        for d, name in enumerate(truth.table.devices)
    ]


def measured(truth: Truth, method: str, queries: int, seed: int) -> tuple[list[float], float]:
    """Shares by device, and seconds."""
    torch.manual_seed(seed)
    began = time.perf_counter()
    if method == "pareto":
        searcher = Pareto(truth.space, table=str(LATENCIES))
        shares = truth.shares(asked(searcher, queries, truth))
    elif method == "random":
        shares = truth.shares(asked(RandomSearch(truth.space), queries, truth))
    elif method == "nsga2, shared":
        shares = by_nsga2(truth, queries // len(truth.table.devices))
    else:
        shares = by_nsga2(truth, queries)
    return shares, time.perf_counter() - began


METHODS = ("pareto", "random", "nsga2, shared", "nsga2")


def main(out: Path) -> None:
    torch.set_num_threads(2)
    truth, found = Truth(), []
    for method in os.environ.get("METHODS", ";".join(METHODS)).split(";"):
        for queries in QUERIES:
            runs = [measured(truth, method, queries, seed) for seed in range(SEEDS)]
            table = np.array([shares for shares, _ in runs])  # (seeds, D)
            seconds = statistics.mean(s for _, s in runs)
            by_device = dict(zip(truth.table.devices, table.mean(0).tolist(), strict=True))
            found.append(
                {"method": method, "queries": queries, "seconds": seconds, "seeds": SEEDS,
                 "hypervolume": by_device, "worst_run": float(table.min())}
            )  # fmt: skip
            print(
                f"{method:14s} {queries:4d} queries: mean {table.mean():.4f}, worst device "
                f"{table.mean(0).min():.4f}, worst run {table.min():.4f}, {seconds:.1f} s",
                flush=True,
            )
    out.mkdir(parents=True, exist_ok=True)
    (out / "devices.json").write_text(json.dumps(found, indent=2) + "\n")
    for device in truth.table.devices:
        values = " ".join(f"{100 * one['hypervolume'][device]:9.2f}" for one in found)
        print(f"{device:16s} {values}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
