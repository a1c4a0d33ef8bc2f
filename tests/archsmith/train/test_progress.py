"""The bar of a terminal and the lines of the log keep out of each other's way."""

import logging
import sys

from archsmith.train.record import Progress


def test_c7_lines_of_the_log_go_above_the_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    plain = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger()
    logger.addHandler(plain)
    try:
        with Progress("search", 4) as progress:
            assert not progress.bar.disable
            assert plain not in logger.handlers  # its lines would end in the bar's
            logging.getLogger("archsmith").warning("a line")
        assert plain in logger.handlers
    finally:
        logger.removeHandler(plain)
    assert "a line" in "".join(capsys.readouterr())
