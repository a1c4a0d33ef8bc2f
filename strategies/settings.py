"""Which setting an error is about: an ingredient names its parameter, and who builds or calls it
puts the path before."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

PARAMETER = re.compile(r"[a-z]\w*(, [a-z]\w*)*: ")  # "weight: ", or "r, mu: "


def located(path: str, message: str) -> str:
    """The message with the path of the setting before it.

    At `losses.mine`, "weight: expected ..." is "losses.mine.weight: expected ..."; a message that
    names no parameter follows a colon, and one that starts with the path stays as it is.
    """
    if re.match(rf"{re.escape(path)}\b", message):
        return message
    return f"{path}{'.' if PARAMETER.match(message) else ': '}{message}"


@contextmanager
def setting(path: str) -> Iterator[None]:
    """Puts the path of a setting before what a ValueError says."""
    try:
        yield
    except ValueError as error:
        raise ValueError(located(path, str(error))) from error
