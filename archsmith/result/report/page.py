"""A run's `report.html`: one file without scripts or external links, from its folder only."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from archsmith.files import write_atomically
from archsmith.result.limits import NAMES
from archsmith.result.report.charts import legend, line_chart
from archsmith.result.report.html import chart, count, grid, html_page, percent, section, table
from archsmith.train.doubts import doubts, interval

Metrics = Sequence[Mapping[str, Any]]


def write_report(folder: Path, command: str) -> Path:
    """Writes `report.html` from the files in the folder; parts without data are left out.

    Args:
        command: the command that repeats the run.
    """
    results = json.loads((folder / "results.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    metrics = _metrics(folder / "metrics.jsonl")
    title = (
        f"{results['strategy']} on {results['space']}, {results['data']}, seed {results['seed']}"
    )
    parts = [
        _head(title, results),
        _warnings(results),
        _cells(folder),
        _search(metrics["search"], results),
        _gates(folder / "gates"),
        _pareto(folder),
        _benchmark(results),
        _budget(results),
        _retraining(metrics["retrain"]),
        _baseline(results),
        _cost(results),
        _checklist(results),
        _provenance(results, config, command),
    ]
    page = html_page(title, "".join(parts))
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _metrics(path: Path) -> dict[str, Metrics]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines]
    return {
        phase: [entry for entry in entries if entry["phase"] == phase]
        for phase in ("search", "retrain")
    }


def _head(title: str, results: Mapping[str, Any]) -> str:
    gap = (results["diagnosis"] or {}).get("discretisation_gap")
    tiles = [
        (_tested(results), percent(results["test_accuracy"])),
        ("supernet, held-out images", percent(results["supernet_accuracy"])),
        ("discretised, same weights", percent(results["discretised_accuracy"])),
        ("discretisation gap", percent(gap)),
        ("parameters", count(results["parameters"])),
        ("multiply-accumulates", count(results["macs"])),
        ("seconds of search", count(results["seconds"].get("search"))),
    ]
    shown = "".join(
        f'<div class="tile"><b>{value}</b><span>{name}</span></div>'
        for name, value in tiles
        if value
    )
    told = "".join(f'<p class="warning">{escape(doubt)}</p>' for doubt in doubts(results))
    return f'<h1>{escape(title)}</h1><div class="tiles">{shown}</div>{told}'


def _tested(results: Mapping[str, Any]) -> str:
    where = interval(results)
    return "test accuracy, retrained" + (f" (95% interval {where})" if where else "")


def _warnings(results: Mapping[str, Any]) -> str:
    """The run's warnings that are not shown above."""
    above = doubts(results)
    lines = [
        line for line in results.get("warnings") or [] if not any(doubt in line for doubt in above)
    ]
    told = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return section("Warnings", f"<ul>{told}</ul>" if told else "")


def _cells(folder: Path) -> str:
    drawings = [path.read_text() for path in sorted(folder.glob("cell_*.svg"))]
    return section("The found cells", "".join(f'<div class="wide">{d}</div>' for d in drawings))


def _search(metrics: Metrics, results: Mapping[str, Any]) -> str:
    accuracies = {
        "train": _column(metrics, "train_accuracy"),
        "supernet, held-out": _column(metrics, "supernet_accuracy"),
        "discretised, same weights": _column(metrics, "discretised_accuracy"),
    }
    losses = {
        "train": _column(metrics, "train_loss"),
        "val (alphas)": _column(metrics, "val_loss"),
        "supernet, held-out": _column(metrics, "supernet_loss"),
    }
    decided = {
        "entropy": _column(metrics, "gate_entropy"),
        "margin": _column(metrics, "gate_margin"),
    }
    counts = {name: _column(metrics, name) for name in ("skips", "pools", "nones")}
    charts = [
        chart("accuracy", accuracies, percent=True, limits=(0.0, 1.0)),
        chart("loss", losses),
        chart("gates: entropy (1 undecided), margin", decided, limits=(0.0, 1.0)),
        chart("kept skips and pools, edges won by none", counts),
    ]
    for name, shown in (
        ("alpha_eigenvalue", "largest eigenvalue in alpha"),
        ("weight_sharpness", "sharpness in the weights"),
    ):
        charts.append(chart(shown, {shown: _column(metrics, name)}))
    body = "".join(chart for chart in charts if chart)
    return section("The search, epoch by epoch", f'<div class="grid2">{body}</div>' if body else "")


def _gates(folder: Path) -> str:
    """The gates over epochs: a small chart per edge."""
    epochs = [json.loads(path.read_text()) for path in sorted(folder.glob("epoch_*.json"))]
    parts = []
    for group in epochs[0] if epochs else ():
        edges = epochs[0][group]
        names = sorted({name for edge in edges.values() for name in edge})
        charts = []
        for edge in edges:
            series = {name: [epoch[group][edge].get(name) for epoch in epochs] for name in names}
            charts.append(line_chart(edge, series, width=260, height=150))
        parts.append(f"<h3>{escape(group)}</h3>{legend(names)}")
        parts.append(f'<div class="small">{"".join(charts)}</div>')
    return section("How each gate moved", "".join(parts))


def _pareto(folder: Path) -> str:
    drawing = folder / "pareto.svg"
    if not drawing.is_file():
        return ""
    points = json.loads((folder / "pareto.json").read_text())["points"]
    rows = [
        [
            str(point["architecture"]), str(point["epoch"] + 1), count(point["macs"]),
            count(point["parameters"]), percent(point["discretised_accuracy"]),
        ]
        for point in points
    ]  # fmt: skip
    svg = re.sub(r"^.*?(?=<svg)", "", drawing.read_text(), flags=re.S)
    head = ["architecture", "epoch", "multiply-accumulates", "parameters", "accuracy"]
    card = f'<div class="wide" style="background:#fff;border-radius:10px">{svg}</div>'
    return section("The Pareto series", card + table(head, rows))


def _benchmark(results: Mapping[str, Any]) -> str:
    found = results["benchmark"]
    if not found:
        return ""
    told = (
        f"<p>{escape(found['architecture'])}<br>{found['accuracy']:.2f}% on {found['column']}, "
        f"rank {found['rank']:,} of {found['of']:,}, {found['regret']:.2f} points below the best. "
        "The table was read after the search.</p>"
    )
    curve = {"true accuracy of the cell of each epoch (%)": found["accuracy_by_epoch"]}
    return section("The tabular benchmark", told + chart(next(iter(curve)), curve))


def _budget(results: Mapping[str, Any]) -> str:
    """Limits, costs, and what the best architecture without a budget would have kept."""
    told = results.get("budget")
    if not told:
        return ""
    columns = [told["limits"], told["cost"], *([told["without"]] if "without" in told else [])]
    rows = [[NAMES[kind], *(f"{column[kind]:,g}" for column in columns)] for kind in columns[0]]
    if "without" in told:
        accuracies = (results["discretised_accuracy"], told["without"]["discretised_accuracy"])
        rows.append(["accuracy, supernet's weights", "", *map(percent, accuracies)])
    body = table(["", "at most", "this network", "without the budget"][: len(columns) + 1], rows)
    if told.get("given_up"):
        edges = [
            [f"{row['group']} {row['edge']}", *map(_with_gates, (row["was"], row["is"]))]
            for row in told["given_up"]
        ]
        body += table(["edge", "without the budget (gate)", "within it (gate)"], edges)
    return section("The budget", body)


def _with_gates(kept: Mapping[str, float]) -> str:
    return ", ".join(f"{name} ({gate:.3f})" for name, gate in kept.items()) or "dropped"


def _retraining(metrics: Metrics) -> str:
    charts = [
        chart("accuracy", {"train": _column(metrics, "train_accuracy")}, percent=True),
        chart("loss", {"train": _column(metrics, "train_loss")}),
    ]
    return section("Retraining", grid(charts))


def _baseline(results: Mapping[str, Any]) -> str:
    """The found network next to the hand-designed one."""
    if not results.get("baseline"):
        return ""
    rows = [["found", *_of_network(results), ""]]
    for name, told in results["baseline"].items():
        near = f"width {told['width']:.3g}: {told['ratio']:.3f} of its {told['match']}"
        rows.append([name, *_of_network(told), near])
    head = ["network", "test accuracy", "parameters", "multiply-accumulates", ""]
    told = (
        '<p class="soft">All trained by the same recipe on the same images from the same seed, and '
        "tested once each; a hand-made one has neither auxiliary head nor drop-path.</p>"
    )
    return section("Beside a network made by hand", table(head, rows) + told)


def _of_network(told: Mapping[str, Any]) -> list[str]:
    return [percent(told["test_accuracy"]), count(told["parameters"]), count(told["macs"])]


def _cost(results: Mapping[str, Any]) -> str:
    rows = [
        [phase, f"{seconds:,.1f}", f"{results['peak_memory_bytes'].get(phase, 0) / 2**20:,.0f}"]
        for phase, seconds in results["seconds"].items()
    ]
    cost = table(["phase", "seconds", "peak memory (MiB)"], rows)
    return section("Cost", cost + f'<p class="soft">{escape(results["device"])}</p>')


def _checklist(results: Mapping[str, Any]) -> str:
    reads = results["test_reads"]
    searched = "search" in results["seconds"]
    rows = [
        ["code and configuration of search and final training are at hand", "yes", "below"],
        ["the seed is known", "yes", f"{results['seed']}"],
        ["the test split steered nothing", "by construction",
         f"read {reads} times, after retraining"],
        ["the same space and recipe for all that is compared", "by construction",
         "task=compare keeps recipes apart"],
        ["several seeds", "not in one run", "run -m seed=0,1,2, then task=compare"],
        ["random search beside it", "yes" if results["strategy"] == "random" else "not in one run",
         "strategy=random with the same settings"],
        ["performance over time", "yes" if searched else "no search", "the charts above"],
        ["the whole time is reported", "yes", "search and retraining, without tuning"],
        ["how hyper-parameters were tuned", "not known to the program", "say it"],
        ["a tabular benchmark", "yes" if results["benchmark"] else "no",
         "space=nasbench201 benchmark.table=..."],
    ]  # fmt: skip
    told = (
        '<p class="soft">After the checklist of Lindauer and Hutter 2020, arXiv:1909.02453, as far '
        "as one run can answer it.</p>"
    )
    return section("Good practice", told + table(["practice", "here", ""], rows))


def _provenance(results: Mapping[str, Any], config: Mapping[str, Any], command: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    facts = [
        ["versions", versions],
        ["data fingerprint", str(results["data_fingerprint"])],
        ["architecture", str(results["architecture"])],
    ]
    settings = escape(json.dumps(config, indent=2))
    return section(
        "To repeat it",
        f"<pre>{escape(command)}</pre>{table(['', ''], facts)}"
        f"<details><summary>every setting</summary><pre>{settings}</pre></details>",
    )


def _column(metrics: Metrics, name: str) -> list[float | None]:
    return [entry.get(name) for entry in metrics]
