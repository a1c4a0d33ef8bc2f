"""The model card: `export/README.md`, what a network is, how good, how to use it, its limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archsmith.data.names import printable

TEMPLATE = Path(__file__).with_name("card.md.jinja")
OF_TEXT = Path(__file__).with_name("card_text.md.jinja")


def model_card(export: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """The text, in Markdown. export: the content of `export.json`; told: that of `results.json`."""
    from jinja2 import StrictUndefined, Template

    file = OF_TEXT if "characters" in export else TEMPLATE
    template = Template(
        file.read_text("utf-8"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    reads = told["test_reads"]
    doubts = (told["test_doubt"], told["degenerate"])
    return template.render(
        export={**export, "forms": {"standalone": None, "onnx": None} | dict(export["forms"])},
        classes=[printable(name) for name in export["classes"]],
        shape=export["input_shape"],
        told=told,
        reads="once" if reads == 1 else f"{reads} times",
        warnings=[line for line in doubts if line],
        int8=told.get("int8") if "file" in export["forms"].get("int8", {}) else None,
        latency=told.get("latency") or _budgeted(told["budget"] or {}),
        duration=_duration,
        percent=lambda share: f"{100 * share:.2f}%",
    )


def _budgeted(budget: Mapping[str, Any]) -> dict[str, Any]:
    """The latency that a run with a limit on it has measured, as `model.py` runs the network."""
    return {"model.py": budget["latency"]} if "latency" in budget else {}


def _duration(latency: Mapping[str, Any]) -> str:
    """A measured latency: the median with quartiles."""
    median, low, high = (f"{latency[name]:.3g}" for name in ("median", "low", "high"))
    images = "an image" if latency["batch"] == 1 else f"{latency['batch']} images"
    where = f", {latency['device']}" if "device" in latency else ""
    return f"{median} ms for {images} (quartiles {low} to {high}{where})"
