"""A run's `report.html`: one file without scripts or external links, from its folder only."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from archsmith.drawing.charts import Chart, line_chart, trade_off_charts
from archsmith.drawing.render import render
from archsmith.files import write_atomically
from archsmith.result.limits import NAMES
from archsmith.train.doubts import doubts, interval

Metrics = Sequence[Mapping[str, Any]]
ACCURACIES = {
    "train": "train_accuracy",
    "supernet, held-out": "supernet_accuracy",
    "discretised, same weights": "discretised_accuracy",
}
LOSSES = {"train": "train_loss", "val (alphas)": "val_loss", "supernet, held-out": "supernet_loss"}

CURVE = "true accuracy of the cell of each epoch (%)"


def write_report(folder: Path, command: str) -> Path:
    """Writes `report.html` from the files in the folder; parts without data are left out.

    Args:
        command: the command that repeats the run.
    """
    results = json.loads((folder / "results.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    told, benchmark = doubts(results), results["benchmark"] or {}
    series = folder / "pareto.json"
    points = json.loads(series.read_text())["points"] if series.is_file() else []
    page = render(
        "run.html.j2",
        title=f"{results['strategy']} on {results['space']}, {results['data']}, "
        f"seed {results['seed']}",
        results=results,
        interval=interval(results),
        doubts=told,
        warnings=[
            line
            for line in results.get("warnings") or []
            if not any(doubt in line for doubt in told)
        ],
        cells=[path.read_text() for path in sorted(folder.glob("cell_*.svg"))],
        search=_search(_metrics(folder, "search")),
        gates=_gates(folder / "gates"),
        pareto=points,
        trade_off=trade_off_charts(points),
        benchmark=line_chart(CURVE, {CURVE: benchmark.get("accuracy_by_epoch", [])}),
        costs=NAMES,
        retraining=_retraining(_metrics(folder, "retrain")),
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        settings=json.dumps(config, indent=2),
        command=command,
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _metrics(folder: Path, phase: str) -> Metrics:
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [entry for entry in map(json.loads, lines) if entry["phase"] == phase]


def _search(metrics: Metrics) -> list[Chart]:
    counts = {name: name for name in ("skips", "pools", "nones")}
    gates = {"entropy": "gate_entropy", "margin": "gate_margin"}
    eigenvalue, sharpness = "largest eigenvalue in alpha", "sharpness in the weights"
    return [
        *_charts("accuracy", metrics, ACCURACIES, percent=True, limits=(0.0, 1.0)),
        *_charts("loss", metrics, LOSSES),
        *_charts("gates: entropy (1 undecided), margin", metrics, gates, limits=(0.0, 1.0)),
        *_charts("kept skips and pools, edges won by none", metrics, counts),
        *_charts(eigenvalue, metrics, {eigenvalue: "alpha_eigenvalue"}),
        *_charts(sharpness, metrics, {sharpness: "weight_sharpness"}),
    ]


def _retraining(metrics: Metrics) -> list[Chart]:
    return [
        *_charts("accuracy", metrics, {"train": "train_accuracy"}, percent=True),
        *_charts("loss", metrics, {"train": "train_loss"}),
    ]


def _charts(title: str, metrics: Metrics, names: Mapping[str, str], **how: Any) -> Iterable[Chart]:
    """A chart of those metrics that have a value; none if none has. names: shown -> in the file."""
    series = {shown: [entry.get(name) for entry in metrics] for shown, name in names.items()}
    known = {shown: s for shown, s in series.items() if any(value is not None for value in s)}
    return [line_chart(title, known, **how)] if known else []


def _gates(folder: Path) -> dict[str, list[Chart]]:
    """The gates over epochs: group -> a small chart per edge."""
    epochs = [json.loads(path.read_text()) for path in sorted(folder.glob("epoch_*.json"))]
    charts: dict[str, list[Chart]] = {}
    for group, edges in epochs[0].items() if epochs else ():
        names = sorted({name for edge in edges.values() for name in edge})
        for edge in edges:
            series = {name: [epoch[group][edge].get(name) for epoch in epochs] for name in names}
            chart = line_chart(edge, series, width=260, height=150)
            charts.setdefault(group, []).append(chart)
    return charts
