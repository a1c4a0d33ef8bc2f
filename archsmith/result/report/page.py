"""A run's `report.html`: one file without scripts or external links, from its folder only."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archsmith.drawing.charts import undominated
from archsmith.drawing.render import render
from archsmith.files import write_atomically
from archsmith.result.limits import NAMES, changed_rows
from archsmith.train.doubts import doubts, interval

PAIRS = 10  # confusions that are listed
SHOWN = 24  # classes up to which the confusion matrix is drawn
Series = Mapping[str, Sequence[float | None]]


def write_report(folder: Path, command: str) -> Path:
    """Writes `report.html` from the files in the folder; parts without data are left out.

    Args:
        command: the command that repeats the run.
    """
    results = json.loads((folder / "results.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    series = folder / "pareto.json"
    points = json.loads(series.read_text())["points"] if series.is_file() else []
    told, warnings = doubts(results), results.get("warnings") or []
    page = render(
        "run.html.j2",
        title=f"{results['strategy']} on {results['space']}, {results['data']}, "
        f"seed {results['seed']}",
        results=results,
        interval=interval(results),
        doubts=told,
        warnings=[line for line in warnings if not any(doubt in line for doubt in told)],
        cells=[path.read_text() for path in sorted(folder.glob("cell_*.svg"))],
        metrics=_metrics(folder / "metrics.jsonl"),
        gates=_gates(folder / "gates"),
        pareto=points,
        best=undominated(points),
        costs=NAMES,
        changed=changed_rows(results.get("budget") or {}),
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        settings=json.dumps(config, indent=2),
        wrong=_wrong(folder, results.get("test_mistakes")),
        command=command,
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


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
    bins = told["calibration"]["bins"]
    return {
        "classes": sorted(
            (one for one in told["classes"] if one["images"]), key=lambda one: one["accuracy"]
        ),
        "pairs": sorted(pairs, key=lambda pair: -pair[0])[:PAIRS],
        "names": names,
        "matrix": matrix if len(matrix) <= SHOWN else None,
        "error": told["calibration"]["error"],
        "accuracy": [one["accuracy"] for one in bins],
        "confidence": [one["confidence"] for one in bins],
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


def _gates(folder: Path) -> dict[str, dict[str, Series]]:
    """The gates over epochs: choice -> row -> candidate -> a value per epoch, None if it has none.

    All rows of a choice have all its candidates, so that each has one colour.
    """
    epochs = [json.loads(path.read_text()) for path in sorted(folder.glob("epoch_*.json"))]
    tables: dict[str, dict[str, Series]] = {}
    for choice, rows in epochs[0].items() if epochs else ():
        names = sorted({name for row in rows.values() for name in row})
        tables[choice] = {
            row: {name: [epoch[choice][row].get(name) for epoch in epochs] for name in names}
            for row in rows
        }
    return tables
