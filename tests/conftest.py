"""One thread and a seed for every test; toy spaces with 8 channels and 16 x 16 images."""

import gc
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
import torch
import yaml
from helpers import RUN
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from archsmith.cli import main as run
from archsmith.train.garbage import settled
from search_spaces.darts import CANDIDATES, darts
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space

# The same examples on every run, for reproducibility; --hypothesis-profile=explore draws others,
# and more of them.
settings.register_profile("repeatable", derandomize=True, max_examples=100)
settings.register_profile("explore", max_examples=1000)
settings.load_profile("repeatable")


gc.disable()  # while tests are imported
imported = ExitStack()

load_settings = OmegaConf.load


@cache
def parsed(text: str) -> Any:
    return yaml.load(text, Loader=get_yaml_loader())


def load(file: str | Path | IO[Any]) -> Any:
    """`OmegaConf.load` with a cache of parsed texts, as parsing takes a quarter of composing."""
    if not isinstance(file, str | Path):
        found = parsed(file.read())
        if isinstance(found, dict):
            return OmegaConf.create(found)
        file.seek(0)
    return load_settings(file)


OmegaConf.load = staticmethod(load)


def pytest_collection_finish() -> None:
    """Excludes imported objects from garbage collection, which took half of a quick test's time."""
    imported.enter_context(settled())
    gc.enable()


def pytest_sessionfinish() -> None:
    imported.close()


@pytest.fixture(autouse=True)
def quiet_machine() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def toy_darts() -> Space:
    return darts(
        layers=3,
        nodes=2,
        channels=8,
        candidates=list(CANDIDATES),
        input_shape=(3, 16, 16),
        classes=10,
    )


@pytest.fixture
def toy_nasbench201() -> Space:
    return nasbench201(
        layers=5,
        nodes=3,
        channels=8,
        candidates=list(NASBENCH201),
        input_shape=(3, 16, 16),
        classes=10,
    )


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def archsmith(monkeypatch, capfd, tmp_path: Path) -> Callable[..., Said]:
    """`archsmith(*overrides)` runs `python run.py ...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str) -> Said:
        GlobalHydra.instance().clear()
        run.composed.clear()
        if "-m" not in overrides:  # saves a composition: no run sets a mode
            monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        monkeypatch.setattr(sys, "argv", [RUN, *overrides])
        code = 0
        try:
            run.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capfd.readouterr())

    return call


def pytest_terminal_summary(terminalreporter) -> None:
    """Counts the tested cases of docs/reliability.md, by the numbers in test names."""
    outcomes = [
        (number, report.passed)
        for report in (
            *terminalreporter.getreports("passed"),
            *terminalreporter.getreports("failed"),
        )
        if report.when == "call"
        for number in re.findall(r"(?<=_)f\d\d(?=_)", report.nodeid.rpartition("::")[2])
    ]
    if outcomes:
        cases = {number for number, _ in outcomes}
        hurt = {number for number, passed in outcomes if not passed}
        terminalreporter.write_line(
            f"faults: {len(cases)} cases tried in {len(outcomes)} trials, "
            f"{len(cases - hurt)} survived"
        )
