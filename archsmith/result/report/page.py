"""A run's `report.html`: one file without scripts or external links, from its folder only."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archsmith.drawing.charts import inks, undominated
from archsmith.drawing.render import render
from archsmith.files import write_atomically
from archsmith.result.limits import NAMES, changed_rows
from archsmith.result.report.found_cells import found_cells
from archsmith.result.report.gates import Series, gates_by_epoch
from archsmith.result.report.words import checklist, finding, headline, on_column, title
from archsmith.train.doubts import doubts

PAIRS = 10  # confusions that are listed
SHOWN = 24  # classes up to which the confusion matrix is drawn


def write_report(folder: Path, command: str) -> Path:
    """Writes `report.html` from the files in the folder; parts without data are left out.

    Args:
        command: the command that repeats the run.
    """
    results = _read(folder / "results.json")
    settings = _read(folder / "config.json")
    given = settings.get("architecture") is not None
    points = _read(folder / "pareto.json").get("points", [])
    told, warnings = doubts(results), results.get("warnings") or []
    page = render(
        "run.html.j2",
        title=title(results, given=given),
        finding=finding(results, given=given),
        headline=headline(results),
        on_column=on_column,
        results=results,
        doubts=told,
        warnings=[line for line in warnings if not any(doubt in line for doubt in told)],
        **_network(folder),
        metrics=_metrics(folder / "metrics.jsonl"),
        pareto=points,
        best=undominated(points),
        fronts=_read(folder / "fronts.json").get("devices", {}),
        costs=NAMES,
        changed=changed_rows(results.get("budget") or {}),
        checklist=checklist(results),
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        settings=json.dumps(settings, indent=2),
        wrong=_wrong(folder, results.get("test_mistakes")),
        command=command,
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _read(path: Path) -> dict[str, Any]:
    """An object of a file; empty if there is no file."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _network(folder: Path) -> dict[str, Any]:
    """What the report shows of the network and of the gates that it was chosen by."""
    network, gates = _read(folder / "layers.json"), gates_by_epoch(folder)
    cells, epoch = found_cells(folder, network.get("repeats", {}))
    options = (name for rows in gates.values() for row in rows.values() for name in row)
    return {
        "cells": cells,
        "gates": gates,
        "gates_epoch": epoch,
        "candidate_inks": inks(dict.fromkeys(options)),
        "layers": network.get("layers", []),
        "image": network.get("input"),
    }


def _wrong(folder: Path, told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the report shows of `test_mistakes`: classes from the worst on, the commonest
    confusions, the confusion matrix if it fits, calibration, and the surest mistakes with their
    images."""
    if not told:
        return None
    matrix, names = told["confusion"] or [], [one["name"] for one in told["classes"]]
    pairs = [
        (count, names[i], names[j], sum(row))
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    pictures = [
        "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        for path in sorted((folder / "mistakes").glob("*.png"))
    ]
    return {
        "classes": sorted(
            (one for one in told["classes"] if one["images"]), key=lambda one: one["accuracy"]
        ),
        "pairs": sorted(pairs, key=lambda pair: -pair[0])[:PAIRS],
        "names": names,
        "matrix": matrix if len(matrix) <= SHOWN else None,
        "error": told["calibration"]["error"],
        "bins": [one for one in told["calibration"]["bins"] if one["images"]],
        "surest": list(zip(told["surest"], pictures, strict=False)),
    }


def _metrics(path: Path) -> dict[str, Series]:
    """Phase -> metric -> a value per epoch, None if it has none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    metrics: dict[str, Series] = {}
    for phase in ("search", "retrain"):
        entries = [entry for entry in map(json.loads, lines) if entry["phase"] == phase]
        names = {name for entry in entries for name in entry}
        metrics[phase] = {name: [entry.get(name) for entry in entries] for name in names}
    return metrics
