"""The fronts of a search on devices: `pareto/DEVICE/NN.json`, `fronts.json` and `fronts.csv`."""

import csv
import json
import logging
import re
from io import StringIO
from pathlib import Path
from typing import Any

from archsmith.files import write_atomically
from search_spaces.architecture import Architecture
from strategies.searchers.on_devices import OnDevices

FORMAT = "archsmith.fronts/1"
log = logging.getLogger(__name__)


def write_fronts(folder: Path, searcher: OnDevices, meta: dict[str, Any]) -> None:
    """Writes what nothing dominates on each device, the cheapest first, with costs and scores; each
    architecture is ready for retraining."""
    for path in folder.glob("pareto/*/*.json"):  # of an earlier search
        path.unlink()
    found: dict[str, Any] = {}
    for number, (device, points) in enumerate(searcher.fronts().items()):
        cost = searcher.costs[device]
        place = f"pareto/{number:02d}_{re.sub(r'[^A-Za-z0-9]+', '_', device)}"
        found[device] = {"cost": cost.kind, "r2": round(cost.r2, 4), "points": []}
        for position, point in enumerate(points):
            about = {"device": device, cost.kind: point.costs[device], "score": point.score}
            kept = Architecture.of(searcher.space, point.kept, **{**meta, "epoch": None, **about})
            file = f"{place}/{position:02d}.json"
            kept.save(folder / file)
            found[device]["points"].append(
                {"architecture": file, "identity": kept.identity, "cost": point.costs[device],
                 "score": point.score}
            )  # fmt: skip
        log.info("search: %d architectures on the front of %s", len(points), device)
    content = {"format": FORMAT, "space": searcher.space.name, "devices": found}
    write_atomically(folder / "fronts.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(folder / "fronts.csv", _table(found).encode())


def _table(found: dict[str, Any]) -> str:
    """One line per point."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["device", "kind", "cost", "score", "architecture", "identity"])
    for device, front in found.items():
        for one in front["points"]:
            numbers = [one["cost"], one["score"], one["architecture"], one["identity"]]
            writer.writerow([device, front["cost"], *numbers])
    return text.getvalue()
