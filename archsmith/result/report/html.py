"""The elements of a page: sections, charts in a grid, tables, numbers."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from archsmith.result.report.charts import legend, line_chart

STYLE = Path(__file__).with_name("report.css")


def html_page(title: str, body: str) -> str:
    """A complete, self-contained page for light and dark screens of any width."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE.read_text()}</style></head><body>{body}</body></html>\n"
    )


def section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def grid(charts: Sequence[str]) -> str:
    body = "".join(charts)
    return f'<div class="grid2">{body}</div>' if body else ""


def chart(title: str, series: Mapping[str, Sequence[float | None]], **how: Any) -> str:
    """A chart of the series that have a value, with its legend; empty if none has."""
    seen = {n: values for n, values in series.items() if any(v is not None for v in values)}
    if not seen:
        return ""
    names = legend(list(seen)) if len(seen) > 1 else ""
    return f"<figure style='margin:0'>{line_chart(title, seen, **how)}{names}</figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    top = row("th", head) if any(head) else ""
    return f'<div class="wide"><table>{top}{"".join(row("td", r) for r in rows)}</table></div>'


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"


def count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
