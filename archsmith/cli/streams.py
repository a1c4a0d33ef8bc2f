"""Output that survives any file name, whatever the encoding of the terminal."""

import io
import logging
import sys
from collections.abc import Sequence

from archsmith.data.names import printable
from archsmith.errors import ConfigError

ESCAPE = "backslashreplace"


def escape_output() -> None:
    r"""Makes output streams and log files escape what they cannot encode, as `\xe9`."""
    files = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    for handler in files:
        handler.errors = ESCAPE  # for a file that is not open yet
    for stream in (sys.stdout, sys.stderr, *(handler.stream for handler in files)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)


def check_words(words: Sequence[str]) -> None:
    """Raises ConfigError for a command line or working directory that is not valid UTF-8.

    Settings are text, and so are the paths in TensorBoard and YAML files.
    """
    for word in words:
        if any("\ud800" <= c <= "\udfff" for c in word):
            raise ConfigError(
                f"command line: '{printable(word)}' is not UTF-8, expected text; rename the file "
                "or folder, or go by a link to it"
            )
