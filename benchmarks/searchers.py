"""Regret of the searchers on a table of NAS-Bench-201 accuracies.

`python benchmarks/searchers.py TABLE [--column cifar10] [--queries 300] [--seeds 50] [--only NAME
...] [--out DIR]`, where TABLE is a CSV with a column `architecture`. All searchers have the
settings of `conf/strategy`. Writes the best accuracy so far after each query of each seed to
`DIR/NAME-COLUMN.json`; a repeated command goes on after the last seed in these files. Then it
draws the mean regret with a band of one standard deviation, `DIR/searchers-COLUMN.svg`, and prints
regrets, and p-values of one-sided rank-sum tests against random (each seed is a search of its own).
"""

import argparse
import json
import sys
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import ranksums

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archsmith.data.benchmark import Benchmark, accuracy  # noqa: E402
from archsmith.drawing.render import render  # noqa: E402
from search_spaces.nasbench201 import CANDIDATES, nasbench201  # noqa: E402

SEARCHERS = ("random", "evolution", "mcts", "mcts_bisection", "smbo")
SHOWN = (50, 100, 200, 300)  # queries
TOP = 2.0  # points, of the drawing


def made(name: str, space: Any) -> Any:
    """A searcher with its shipped settings."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf" / "strategy")):
        config = compose(name)
    return instantiate(config, _convert_="all")(space)


def best_so_far(name: str, table: dict[str, float], queries: int, seed: int) -> list[float]:
    """The best accuracy in % after each query of one search."""
    torch.manual_seed(seed)
    sizes = {"layers": 5, "nodes": 3, "channels": 4, "input_shape": (3, 8, 8), "classes": 2}
    searcher = made(name, nasbench201(candidates=list(CANDIDATES), **sizes))
    found = []
    for _ in range(queries):
        asked = searcher.ask()
        found.append(accuracy(table, asked))
        searcher.tell(asked, found[-1] / 100)
    return list(accumulate(found, max))


def drawn(regrets: dict[str, np.ndarray], path: Path) -> None:
    """regrets: name -> (seeds, queries)."""
    series = {
        name: {
            "mean": all_seeds.mean(0).tolist(),
            "low": np.maximum(all_seeds.mean(0) - all_seeds.std(0, ddof=1), 0).tolist(),
            "high": (all_seeds.mean(0) + all_seeds.std(0, ddof=1)).clip(max=TOP).tolist(),
        }
        for name, all_seeds in regrets.items()
    }
    for one in series.values():
        one["mean"] = [value if value <= TOP else None for value in one["mean"]]
    title = "regret in points: mean, and a band of one standard deviation"
    path.write_text(
        render("bands.svg.j2", title=title, series=series, limits=(0, TOP), across="queries")
    )


def told(regrets: dict[str, np.ndarray]) -> None:
    """Prints regrets after `SHOWN` queries, and how often a searcher's regret is below random's."""
    for name, found in regrets.items():
        shown = [q for q in SHOWN if q <= found.shape[1]]
        cells = [f"{found[:, q - 1].mean():.3f} ± {found[:, q - 1].std(ddof=1):.3f}" for q in shown]
        tests = [
            ranksums(found[:, q - 1], regrets["random"][:, q - 1], alternative="less").pvalue
            for q in shown
        ]
        print("|", name, "|", " | ".join(cells), "|", " ".join(f"{p:.2g}" for p in tests), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--column", default="cifar10")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--only", nargs="*", default=SEARCHERS)
    parser.add_argument("--out", type=Path, default=Path("outputs") / "searchers")
    options = parser.parse_args()
    table = Benchmark(str(options.table), options.column, 2).read()
    options.out.mkdir(parents=True, exist_ok=True)
    regrets = {}
    for name in options.only:
        file = options.out / f"{name}-{options.column}.json"
        curves = json.loads(file.read_text()) if file.is_file() else []
        began = time.process_time()
        for seed in range(len(curves), options.seeds):
            curves.append(best_so_far(name, table, options.queries, seed))
            file.write_text(json.dumps(curves))
        print(f"{name}: {time.process_time() - began:.0f} s of processor time", flush=True)
        regrets[name] = max(table.values()) - np.array(curves[: options.seeds])
    if "random" in regrets:
        told(regrets)
        drawn(regrets, options.out / f"searchers-{options.column}.svg")


if __name__ == "__main__":
    main()
