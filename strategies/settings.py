"""Names the setting in an error: an ingredient names its parameter, and the code that builds or
calls it prepends the path."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PARAMETER = re.compile(r"[a-z]\w*(, [a-z]\w*)*: ")  # "weight: ", or "r, mu: "


def located(path: str, message: str) -> str:
    """The message with the path of the setting prepended.

    At `losses.mine`, "weight: expected ..." becomes "losses.mine.weight: expected ..."; a message
    without a parameter follows a colon, and one that already starts with the path is unchanged.
    """
    if re.match(rf"{re.escape(path)}\b", message):
        return message
    return f"{path}{'.' if PARAMETER.match(message) else ': '}{message}"


@contextmanager
def setting(path: str) -> Iterator[None]:
    """A context manager that prepends the path of a setting to the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(located(path, str(error))) from error


def require(holds: bool, name: str, expected: str, found: Any) -> None:
    """Raises ValueError unless `holds`, naming the setting, the expected and the found value."""
    if not holds:
        raise ValueError(f"{name}: expected {expected}, found {found!r}")
