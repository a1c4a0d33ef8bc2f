"""Fills the templates in `archsmith/templates`, which escape every name that they show."""

import re
from functools import cache
from typing import Any

from archsmith.drawing.charts import (
    COLOURS,
    Axis,
    inks,
    panes,
    path,
    placed,
    readings,
    round_limits,
    ticks_from_one,
)

UNPRINTABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in no XML


def render(template: str, **facts: Any) -> str:
    """A template with these facts. Raises jinja2.UndefinedError if it asks for another."""
    return _environment().get_template(template).render(facts)


def chart(macro: str, *data: Any, **how: Any) -> str:
    """A chart by one of the macros of `charts.j2`, as SVG."""
    return str(getattr(_environment().get_template("charts.j2").module, macro)(*data, **how))


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("archsmith"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {
        "px": lambda length: f"{length:.1f}",
        "point": lambda point: f"{point[0]:.1f} {point[1]:.1f}",
        "count": lambda value: "" if value is None else f"{value:,.0f}",
        "percent": lambda share: "" if share is None else f"{100 * share:.2f}%",
    }
    environment.globals |= {
        "colours": COLOURS,
        "inks": inks,
        "axis": Axis,
        "panes": panes,
        "placed": placed,
        "path": path,
        "readings": readings,
        "round_limits": round_limits,
        "ticks_from_one": ticks_from_one,
    }
    return environment


def _printable(value: Any) -> Any:
    return UNPRINTABLE.sub("\ufffd", value) if type(value) is str else value
