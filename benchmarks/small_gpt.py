"""A found small language model against random ones of like size and the largest, at equal steps.

`python benchmarks/small_gpt.py OUT [--random 8] [--jobs 2] [-- OVERRIDES...]`: about 5 minutes of 2
quiet cores, on the help topics of Python (`data=text`).

`drnas` searches the demo's space `gpt` with its cost held in a band around half of the largest
network's. The found network, random ones whose multiply-accumulates are within 5% of its own, and
the largest one, which has twice as many, are then trained alike, by the same number of steps, and
each reads the test part once. Random ones are drawn row by row, the same ones for the same found
network.

Prints a table, and how many random ones the found one is better than; of n + 1 networks that are
alike, each is the best with a chance of 1 / (n + 1). A repeated command goes on where it stopped.
OVERRIDES go to all runs, such as `seed=1 data.root=my.txt`.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search_spaces.architecture import Architecture  # noqa: E402
from search_spaces.space import Space  # noqa: E402
from search_spaces.transformers import gpt  # noqa: E402
from strategies.searchers.random import RandomSearch  # noqa: E402
from supernets.costs import macs  # noqa: E402
from supernets.network import final_network  # noqa: E402

COMMON = (
    "space=gpt", "data=text", "strategy=drnas", "data.limit=null", "retrain.epochs=5",
    "retrain.batch_size=32", "export.formats=[]", "loggers=[]",
)  # fmt: skip
SEARCH = (
    "task=search", "search.epochs=4", "strategy/losses=[dirichlet_anchor,macs_band]",
    "strategy.losses.macs_band.target=0.5",
)  # fmt: skip
LIKE = 0.05  # share by which the costs of random ones may differ
MOST = 100_000  # draws


def run(out: Path, common: Sequence[str], name: str, *overrides: str) -> dict[str, Any]:
    """The results of `run.py` in a folder, which goes on or finds itself finished."""
    command = [
        sys.executable, str(ROOT / "run.py"), *common, *overrides, f"hydra.run.dir={out / name}",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((out / name / "results.json").read_text())
    return found


def counted(space: Space, architecture: Architecture) -> int:
    """Multiply-accumulates of the final network for one window."""
    with torch.device("meta"):
        return macs(final_network(space, architecture))


def like(space: Space, found: Architecture, count: int) -> list[Architecture]:
    """Random architectures, each another one, that cost about as much as the found one."""
    torch.manual_seed(0)
    draw, target = RandomSearch(space).ask, counted(space, found)
    kept: dict[str, Architecture] = {}
    for _ in range(MOST):
        one = draw()
        near = abs(counted(space, one) / target - 1) <= LIKE
        if near and one.identity != found.identity:
            kept[one.identity] = one
        if len(kept) == count:
            return list(kept.values())
    raise SystemExit(f"only {len(kept)} of {MOST} random networks cost {target:,} ± {LIKE:.0%}")


def trained(
    out: Path, common: Sequence[str], named: tuple[str, Architecture]
) -> tuple[str, dict[str, Any]]:
    """The results of one architecture's training and test."""
    name, architecture = named
    file = out / f"{name}.json"
    architecture.save(file)
    return name, run(out, common, name, "task=all", f"architecture={file}")


def show(results: dict[str, dict[str, Any]]) -> None:
    """Prints the table, and where the found network stands."""
    print("| network | bits per character | accuracy, % | multiply-accumulates | parameters |")
    print("|---|---|---|---|---|")
    for name, told in results.items():
        bits, right = told["test_bits_per_character"], 100 * told["test_accuracy"]
        sizes = f"{told['macs']:,} | {told['parameters']:,}"
        print(f"| {name} | {bits:.3f} | {right:.2f} | {sizes} |")
    drawn = [r["test_bits_per_character"] for n, r in results.items() if n.startswith("random")]
    found = results["found"]["test_bits_per_character"]
    spread = f" ± {statistics.stdev(drawn):.3f}" if len(drawn) > 1 else ""
    print(
        f"\nfound {found:.3f}, random {statistics.fmean(drawn):.3f}{spread} (n = {len(drawn)}): "
        f"better than {sum(found < one for one in drawn)} of {len(drawn)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--random", type=int, default=8, help="random networks")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, of one thread each")
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    given, overrides = parser.parse_args(words[:at]), words[at + 1 :]
    common = [*COMMON, *overrides]
    given.out.mkdir(parents=True, exist_ok=True)
    run(given.out, [*COMMON, *SEARCH, *overrides], "search")
    found = Architecture.load(given.out / "search" / "architecture.json")
    space = gpt(**{name: value for name, value in found.space.items() if name != "name"})
    drawn = like(space, found, given.random)
    networks = {"found": found, "largest": Architecture.of(space, space.unpruned or {})}
    networks |= {f"random_{i}": one for i, one in enumerate(drawn)}
    with ThreadPoolExecutor(given.jobs) as pool:
        results = dict(pool.map(partial(trained, given.out, common), networks.items()))
    show(results)


if __name__ == "__main__":
    main()
