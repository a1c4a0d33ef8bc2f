"""Python literals for generated source, formatted like `ruff format`."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 100
SCREEN = 30


class Code(str):
    """Source text that is put into a literal verbatim."""

    __slots__ = ()


def literal(value: Any, *, indent: int = 0, used: float = 0) -> str:
    """The source of numbers, strings and containers, on several lines if one is too short.

    `used` is the number of columns before it on its line, `indent` the indentation of that line.

    Raises:
        ValueError: a value of another type.
    """
    match value:
        case Code():
            return value
        case str():
            return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(value)
        case None | bool() | int():
            return repr(value)
        case float():
            return repr(float(value)) if math.isfinite(value) else f'float("{float(value)}")'
        case Mapping():
            ends, rows = "{}", [(f"{literal(key)}: ", item) for key, item in value.items()]
        case tuple() | list():
            ends, rows = "()" if isinstance(value, tuple) else "[]", [("", item) for item in value]
        case _:
            raise ValueError(f"no literal of a {type(value).__name__} can be written: {value!r}")
    items = [key + literal(item, used=-math.inf) for key, item in rows]
    line = f"{ends[0]}{', '.join(items)}{',' * (ends == '()' and len(rows) == 1)}{ends[1]}"
    if indent + used + len(line) <= WIDTH:
        return line
    step = indent + 4
    lines = [
        f"{' ' * step}{key}{literal(item, indent=step, used=len(key) + 1)},\n" for key, item in rows
    ]
    return f"{ends[0]}\n{''.join(lines)}{' ' * indent}{ends[1]}"


def packed(values: Sequence[str], *, used: int) -> str:
    """A tuple; if it takes more than a screen of lines, as many values per line as fit."""
    text = literal(tuple(values), used=used)
    if text.count("\n") <= SCREEN:
        return text
    rows = [""]
    for item in map(literal, values):
        if len(f"    {rows[-1]} {item},") > WIDTH:
            rows.append("")
        rows[-1] += f"{' ' if rows[-1] else ''}{item},"
    return "".join(["(\n", *(f"    {row}\n" for row in rows), ")  # fmt: skip"])
