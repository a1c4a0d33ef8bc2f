"""File and class names that can be printed and compared, whatever bytes the disk contains."""

import unicodedata

ESCAPED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, line and paragraph separators


def printable(name: str) -> str:
    r"""One line of UTF-8: invalid bytes are escaped as `\xe9`, control characters as `\n`.

    name: as Python reads it from the disk, with invalid UTF-8 as surrogates.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ESCAPED else c
        for c in text
    )


def canonical(name: str) -> str:
    """The printable name in NFC, so that it does not depend on the file system."""
    return unicodedata.normalize("NFC", printable(name))
