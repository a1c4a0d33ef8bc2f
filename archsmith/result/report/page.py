"""A run's `report.html`: one file without scripts or external links, from its folder only."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archsmith.drawing.charts import Chart, line_chart, trade_off_charts
from archsmith.drawing.render import render
from archsmith.files import write_atomically
from archsmith.result.limits import NAMES
from archsmith.train.doubts import doubts, interval

Plan = tuple[str, Mapping[str, str], dict[str, Any]]  # title; line -> metric; how it is drawn

SEARCH: Sequence[Plan] = (
    (
        "accuracy",
        {
            "train": "train_accuracy",
            "supernet, held-out": "supernet_accuracy",
            "discretised, same weights": "discretised_accuracy",
        },
        dict(form=".0%", limits=(0.0, 1.0)),
    ),
    (
        "loss",
        {"train": "train_loss", "val (alphas)": "val_loss", "supernet, held-out": "supernet_loss"},
        {},
    ),
    (
        "gates: entropy (1 undecided), margin",
        {"entropy": "gate_entropy", "margin": "gate_margin"},
        dict(limits=(0.0, 1.0)),
    ),
    (
        "kept skips and pools, edges won by none",
        {"skips": "skips", "pools": "pools", "nones": "nones"},
        {},
    ),
    ("largest eigenvalue in alpha", {"eigenvalue": "alpha_eigenvalue"}, {}),
    ("sharpness in the weights", {"sharpness": "weight_sharpness"}, {}),
)
RETRAINING: Sequence[Plan] = (
    ("accuracy", {"train": "train_accuracy"}, dict(form=".0%")),
    ("loss", {"train": "train_loss"}, {}),
)


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
        search=_charts(folder, "search", SEARCH),
        gates=_gates(folder / "gates"),
        pareto=points,
        trade_off=trade_off_charts(points),
        benchmark=line_chart(
            "true accuracy of the cell of each epoch (%)",
            {"accuracy": benchmark.get("accuracy_by_epoch", [])},
        ),
        costs=NAMES,
        retraining=_charts(folder, "retrain", RETRAINING),
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        settings=json.dumps(config, indent=2),
        command=command,
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _charts(folder: Path, phase: str, plans: Sequence[Plan]) -> list[Chart]:
    """A phase's charts, without lines that have no value, and without charts that have no line."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    metrics = [entry for entry in map(json.loads, lines) if entry["phase"] == phase]
    charts = []
    for title, names, how in plans:
        series = {shown: [entry.get(name) for entry in metrics] for shown, name in names.items()}
        known = {shown: s for shown, s in series.items() if any(value is not None for value in s)}
        charts += [line_chart(title, known, **how)] if known else []
    return charts


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
