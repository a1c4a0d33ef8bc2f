"""The bar of a terminal and the lines of the log keep out of each other's way."""

import logging
import sys
import warnings
from types import ModuleType

import pytest

from archsmith.train.record import Progress, bar_class


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


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_a_bar_of_widgets_if_it_has_widgets(monkeypatch, widgets: bool):
    def found(name: str) -> object:
        return object() if widgets and name == "ipywidgets" else None

    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr("archsmith.train.record.find_spec", found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # tqdm.auto warns of a notebook without widgets
        bar = bar_class()
    assert bar.__name__ == ("tqdm_notebook" if widgets else "tqdm")
    if not widgets:
        with Progress("search", 4) as progress:
            assert not progress.bar.disable
