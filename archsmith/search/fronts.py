"""The fronts of a search on devices: `pareto/DEVICE/NN.json`, `fronts.json` and `fronts.csv`."""

import csv
import json
import logging
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.files import write_atomically
from archsmith.train.run_folder import read_object
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.fronts import front
from strategies.searchers.on_devices import Known
from supernets.device_cost import DeviceCost

FORMAT = "archsmith.fronts/1"
log = logging.getLogger(__name__)


def write_fronts(
    folder: Path,
    space: Space,
    costs: Mapping[str, DeviceCost],
    known: Sequence[Known],
    meta: Mapping[str, Any],
) -> None:
    """Writes what no known architecture dominates on each device, the cheapest first, with costs
    and scores; each is ready for retraining."""
    for path in folder.glob("pareto/*/*.json"):  # of an earlier search
        path.unlink()
    found: dict[str, Any] = {}
    for number, (device, cost) in enumerate(costs.items()):
        every = np.array([(one.costs[device], 1 - one.score) for one in known]).reshape(-1, 2)
        points = [known[i] for i in front(every)]
        place = f"pareto/{number:02d}_{re.sub(r'[^A-Za-z0-9]+', '_', device)}"
        found[device] = {"cost": cost.kind, "r2": round(cost.r2, 4), "points": []}
        for position, point in enumerate(points):
            about = {"device": device, cost.kind: point.costs[device], "score": point.score}
            kept = Architecture.of(space, point.kept, **{**meta, "epoch": None, **about})
            file = f"{place}/{position:02d}.json"
            kept.save(folder / file)
            found[device]["points"].append(
                {"architecture": file, "identity": kept.identity, "cost": point.costs[device],
                 "score": point.score}
            )  # fmt: skip
    content = {"format": FORMAT, "space": space.name, "devices": found}
    write_atomically(folder / "fronts.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(folder / "fronts.csv", _table(found).encode())
    sizes = [len(about["points"]) for about in found.values()]
    log.info(
        "search: %d fronts of %d to %d architectures: %s",
        len(sizes), min(sizes), max(sizes), folder / "fronts.csv",
    )  # fmt: skip


def of_series(folder: Path, costs: Mapping[str, DeviceCost]) -> list[Known]:
    """The architectures of a Pareto series, with the accuracies measured in the search."""
    found = []
    for point in read_object(folder / "pareto.json")["points"]:
        one = Architecture.load(folder / point["architecture"])
        exact = {name: cost.exact(one) for name, cost in costs.items()}
        found.append(Known(one.choices, point["discretised_accuracy"], exact))
    return found


def _table(found: dict[str, Any]) -> str:
    """One line per point."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["device", "kind", "cost", "score", "architecture", "identity"])
    for device, about in found.items():
        for one in about["points"]:
            numbers = [one["cost"], one["score"], one["architecture"], one["identity"]]
            writer.writerow([device, about["cost"], *numbers])
    return text.getvalue()
