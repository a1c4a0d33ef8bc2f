"""The model card: `export/README.md`, what a network is, how good, how to use it, its limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archsmith.data.names import printable

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def model_card(export: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """The text, in Markdown. export: the content of `export.json`; told: that of `results.json`."""
    from jinja2 import StrictUndefined, Template

    template = Template(
        TEMPLATE.read_text("utf-8"), undefined=StrictUndefined, keep_trailing_newline=True
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
        percent=lambda share: f"{100 * share:.2f}%",
    )
