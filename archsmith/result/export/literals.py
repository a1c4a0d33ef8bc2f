"""Python literals for generated source, formatted like `ruff format`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

WIDTH = 100
SCREEN = 30


class Code(str):
    """Source text that is put into a literal verbatim."""

    __slots__ = ()


def literal(value: Any, *, indent: int = 0, used: int = 0) -> str:
    """The source of numbers, strings and containers, on several lines if one is too short.

    `used` is the number of columns before it on its line, `indent` the indentation of that line.

    Raises:
        ValueError: a value of another type.
    """
    line = _line(value)
    if not isinstance(value, Mapping | list | tuple) or indent + used + len(line) <= WIDTH:
        return line
    step = " " * (indent + 4)
    if isinstance(value, Mapping):
        keys = [f"{_line(key)}: " for key in value]
        values = list(value.values())
    else:
        keys, values = [""] * len(value), list(value)
    rows = [
        f"{step}{key}{literal(item, indent=indent + 4, used=len(key) + 1)},\n"
        for key, item in zip(keys, values, strict=True)
    ]
    return f"{line[0]}\n{''.join(rows)}{' ' * indent}{line[-1]}"


def packed(values: Sequence[Any], *, used: int) -> str:
    """A tuple; if it takes more than a screen of lines, as many values per line as fit."""
    text = literal(tuple(values), used=used)
    if text.count("\n") <= SCREEN:
        return text
    rows = [""]
    for item in map(_line, values):
        if len(f"    {rows[-1]} {item},") > WIDTH:
            rows.append("")
        rows[-1] += f"{' ' if rows[-1] else ''}{item},"
    return "".join(["(\n", *(f"    {row}\n" for row in rows), ")  # fmt: skip"])


def shortest(value: float) -> float:
    """The number with the fewest digits that is equal in single precision."""
    single = torch.tensor(value, dtype=torch.float32)
    candidates = (float(f"{value:.{digits}g}") for digits in range(1, 18))
    return next(c for c in candidates if torch.tensor(c, dtype=torch.float32) == single)


def _line(value: Any) -> str:
    match value:
        case Code():
            return value
        case str():
            return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(value)
        case None | bool() | int() | float():
            return repr(value)
        case Mapping():
            return "{" + ", ".join(f"{_line(k)}: {_line(v)}" for k, v in value.items()) + "}"
        case tuple() if len(value) == 1:
            return f"({_line(value[0])},)"
        case tuple():
            return "(" + ", ".join(map(_line, value)) + ")"
        case list():
            return "[" + ", ".join(map(_line, value)) + "]"
    raise ValueError(f"no literal of a {type(value).__name__} can be written: {value!r}")
