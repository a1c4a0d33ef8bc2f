"""A trained ResNet-20 at half its multiply-accumulates: by search, by rules, by evolution.

`python benchmarks/shrink.py OUT SEEDS [--train N] [--tune N] [--share S] [--asks N] --
OVERRIDES...`, where OVERRIDES are the data and the sizes of all runs (`data=folder data.root=...
retrain.batch_size=128 search.epochs=6`).

Each seed trains the network once, from random weights, for `--train` epochs. Then each method
chooses widths whose multiply-accumulates are at most the share S of it, and each result is cut out
of the trained network and tuned for `--tune` epochs with the trained network as its teacher:

- `search`: gates over widths, weights frozen, `strategy=shrink`;
- `uniform`: the same share of all groups; `magnitude`: one threshold over the normalised norms of
  all channels; `fastnas`: one threshold over the drop of accuracy on `select` that each option
  causes alone;
- `evolution`: on inherited weights, `--asks` architectures.

Beside them `original`, the network itself, and `scratch`, the widths of `search` trained like
`original`. `before` is the accuracy on `select` of the cut network before tuning, with re-estimated
statistics; `test` that on the test split after it. All runs are made by `run.py`, each of which
reads the test split once. A repeated command goes on where it stopped.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from hydra import compose, initialize_config_dir  # noqa: E402
from hydra.utils import instantiate  # noqa: E402

from archsmith.cli import naming  # noqa: E402
from archsmith.data.roles import Roles  # noqa: E402
from archsmith.search.measure import discretised_accuracy  # noqa: E402
from archsmith.train.evaluate import evaluate  # noqa: E402
from search_spaces.architecture import Architecture  # noqa: E402
from search_spaces.from_model import WIDTH, FromModelSpace, from_model  # noqa: E402
from supernets import from_model as networks  # noqa: E402
from supernets.channel_cut import scores  # noqa: E402
from supernets.mixed_op import MixedOp  # noqa: E402
from supernets.mixture import Mixture  # noqa: E402
from supernets.narrowing import by_importance, fastnas, uniform  # noqa: E402
from supernets.network import Network, supernet  # noqa: E402

FIELDS = ("seed", "row", "test_accuracy", "before", "macs", "parameters")
CPU = torch.device("cpu")
SEARCH = (
    "strategy=shrink",
    "task=search",
)  # fmt: skip
Fits = Callable[[list[int]], bool]


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            conv = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """He et al. 2016, arXiv:1512.03385, section 4.2, with projections as shortcuts."""

    def __init__(self, num_classes: int, channels: int = 3):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        sizes = [(16, 16, 1), *[(16, 16, 1)] * 2, (16, 32, 2), *[(32, 32, 1)] * 2]
        sizes += [(32, 64, 2), *[(64, 64, 1)] * 2]
        self.blocks = nn.Sequential(*(Block(*size) for size in sizes))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet20(num_classes: int = 10) -> nn.Module:
    return ResNet20(num_classes)


def resnet20_grey(num_classes: int = 10) -> nn.Module:
    return ResNet20(num_classes, channels=1)


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    """Runs `run.py` in a folder, which goes on or finds itself finished: its results."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    command = [sys.executable, str(ROOT / "run.py"), f"hydra.run.dir={folder}", *overrides]
    command += ["space=from_model", "export.formats=[]", "baseline=none"]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": paths}
    )
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


class Seed:
    """The runs of one seed, in a folder. common: overrides of all runs."""

    def __init__(self, out: Path, seed: int, given: argparse.Namespace, common: Sequence[str]):
        self.folder, self.given = out / f"seed{seed}", given
        self.folder.mkdir(parents=True, exist_ok=True)
        naming.register()
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
            config = compose("config", overrides=[*common, f"seed={seed}"])
        self.data = instantiate(config.data, _convert_="all")
        self.settings = {k: config.runtime[k] for k in ("threads",) if k in config.runtime}
        self.roles: Roles = self.data.loaders(128, one_level=True, seed=seed)
        grey = "_grey" * (self.data.input_shape[0] == 1)
        self.model = f"shrink:resnet20{grey}"
        self.common = [*common, f"seed={seed}", f"space.model={self.model}"]
        torch.manual_seed(seed)
        self.start = self.folder / "start.pt"
        if not self.start.is_file():
            torch.save(networks.made(self.model, len(self.data.classes)).state_dict(), self.start)
        self.trained = self.folder / "trained.pt"

    def space(self, weights: Path) -> FromModelSpace:
        shapes = {"input_shape": self.data.input_shape, "classes": len(self.data.classes)}
        sizes = {"divisor": 4, "most": 8, "importance": "l2", "weights": str(weights)}
        found = from_model(model=self.model, **sizes, **shapes)
        assert isinstance(found, FromModelSpace)
        return found

    def train(
        self, name: str, choices: Mapping[str, Any], weights: Path, *how: str
    ) -> dict[str, Any]:
        """Trains and tests the network of these choices from these weights."""
        architecture = Architecture.of(self.space(weights), choices)
        architecture.save(self.folder / f"{name}.json")
        return run(
            self.folder / name, f"architecture={self.folder / name}.json", *self.common, *how,
            *self.sized(weights),
        )  # fmt: skip

    def sized(self, weights: Path) -> list[str]:
        return [f"space.weights={weights}", "space.divisor=4"]

    def rows(self) -> list[dict[str, Any]]:
        original = self.original()
        rows = [{"row": "original", **original}]
        space, limit = self.space(self.trained), self.given.share * original["macs"]
        net = supernet(space, MixedOp)
        chosen = self.chosen(space, net, limit)
        for name, choices in chosen.items():
            tune = [f"retrain.epochs={self.given.tune}", f"retrain.lr={self.given.lr}"]
            found = self.train(name, choices, self.trained, *tune)
            before = discretised_accuracy(net, Architecture.of(space, choices), self.roles)
            rows.append({"row": name, **found, "before": before})
        scratch = [f"retrain.epochs={self.given.train}", "retrain.teacher=null"]
        rows.append(
            {"row": "scratch", **self.train("scratch", chosen["search"], self.start, *scratch)}
        )
        return rows

    def original(self) -> dict[str, Any]:
        """Trains the network, and keeps its weights under their own names."""
        full = self.space(self.start).unpruned
        how = [f"retrain.epochs={self.given.train}", "retrain.teacher=null"]
        found = self.train("original", full, self.start, *how)
        if not self.trained.is_file():
            state = load_file(self.folder / "original" / "weights.safetensors")
            torch.save({n.removeprefix("net."): t for n, t in state.items()}, self.trained)
        return found

    def chosen(self, space: FromModelSpace, net: Network, limit: float) -> dict[str, Any]:
        """Method -> the widths that it chooses."""
        builder = networks.FromModel()

        def fits(options: list[int]) -> bool:
            return builder.counts(space, {WIDTH: options})["macs"] <= limit

        def named(options: list[int]) -> dict[str, dict[str, list[str]]]:
            rows = zip(space.width.rows, options, strict=True)
            return {WIDTH: {row.name: [row.names[o]] for row, o in rows}}

        ruled = {
            "uniform": uniform(space.widths, fits),
            "magnitude": by_importance(space.widths, scores_of(space), fits),
            "fastnas": fastnas(drops_of(space, net, self.roles), fits),
        }
        budget = [f"budget.macs={limit:.0f}", *self.sized(self.trained), *self.common]
        target = self.given.share / 1.05  # so that the band ends at the share
        band = f"strategy.losses.macs_band.target={target:.3f}"
        evolve = [
            "strategy=evolution", f"strategy.asks={self.given.asks}", "search.score=inherited",
            f"retrain.lr={self.given.lr}", "task=search",
        ]  # fmt: skip
        run(self.folder / "choose_search", *budget, *SEARCH, band)
        run(self.folder / "choose_evolution", *budget, *evolve)
        found = {
            name: Architecture.load(self.folder / f"choose_{name}" / "architecture.json").choices
            for name in ("search", "evolution")
        }
        return found | {name: named(options) for name, options in ruled.items()}


def scores_of(space: FromModelSpace) -> list[list[float]]:
    """The normalised norms of the units of each row."""
    told, state = networks.description(space), networks.trained(space)
    every = scores(state, told.found, "l2").tolist()
    groups = [told.found.groups[g] for g in told.open]
    return [every[group.units.start : group.units.stop] for group in groups]


def drops_of(space: FromModelSpace, net: Network, roles: Roles) -> list[list[float]]:
    """By how much the accuracy on `select` falls for each option alone."""
    net.eval()

    def accuracy(choices: Mapping[str, Any]) -> float:
        mixture = Mixture.of(Architecture.of(space, choices), space, CPU)
        return evaluate(net, roles.select, mixture)["accuracy"]

    full = space.unpruned
    most = accuracy(full)
    return [
        [most - accuracy({WIDTH: full[WIDTH] | {row.name: [name]}}) for name in row.names]
        for row in space.width.rows
    ]


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a Markdown table: mean and deviation, every seed."""
    print("| network | test accuracy % | on select before tuning % | M MACs | k parameters |")
    print("|---|---|---|---|---|")
    for name in dict.fromkeys(row["row"] for row in rows):
        cells = [name]
        for field, factor in (
            ("test_accuracy", 100),
            ("before", 100),
            ("macs", 1e-6),
            ("parameters", 1e-3),
        ):
            seen = [factor * row[field] for row in rows if row["row"] == name and field in row]
            mean = f"{statistics.fmean(seen):.2f}" if seen else "-"
            spread = f" ± {statistics.stdev(seen):.2f}" if len(seen) > 1 else ""
            cells.append(f"{mean}{spread}")
        print("|", " | ".join(cells), "|")


def main() -> None:
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("seeds", type=int)
    parser.add_argument("--train", type=int, default=30, help="epochs of the original")
    parser.add_argument("--tune", type=int, default=10, help="epochs of fine-tuning")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of fine-tuning")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--asks", type=int, default=64)
    given = parser.parse_args(sys.argv[1:split])
    rows = []
    for seed in range(given.seeds):
        for row in Seed(given.out.resolve(), seed, given, sys.argv[split + 1 :]).rows():
            rows.append({"seed": seed, **{k: row[k] for k in FIELDS if row.get(k) is not None}})
            print(rows[-1], flush=True)
    with open(given.out / "rows.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    show(rows)


if __name__ == "__main__":
    main()
