"""Names of files and classes as they can be printed and compared, whatever bytes a disk has."""

import unicodedata

ESCAPED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, ends of lines and paragraphs


def printable(name: str) -> str:
    r"""One line of UTF-8: bytes that are none as `\xe9`, control characters as `\n`.

    name: as Python reads it from the disk, bytes that are no UTF-8 as surrogates.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ESCAPED else c
        for c in text
    )


def canonical(name: str) -> str:
    """Printable and composed (NFC): the same however a file system or archive writes accents."""
    return unicodedata.normalize("NFC", printable(name))
