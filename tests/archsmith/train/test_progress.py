"""The bar of a terminal and the lines of the log keep out of each other's way."""

import logging
import re
import sys
import warnings
from types import ModuleType, SimpleNamespace

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
    bar = bar_class()
    assert bar.__name__ == ("tqdm_notebook" if widgets else "tqdm")


def test_a_notebook_without_widgets_shows_a_bar_without_a_warning(monkeypatch, capsys):
    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    fakes = {
        "ipykernel": ModuleType("ipykernel"),
        "IPython": SimpleNamespace(get_ipython=lambda: kernel, version_info=(9,)),
    }
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in [name for name in sys.modules if re.match(r"tqdm\.(auto|contrib|notebook)", name)]:
        monkeypatch.delitem(sys.modules, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Progress("search", 4) as progress:
            progress.bar.update()
            progress.bar.refresh()
    assert "search:  25%" in capsys.readouterr().err
