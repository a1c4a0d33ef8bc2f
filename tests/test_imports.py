"""Imports point one way: search_spaces <- supernets <- strategies <- engine <- run.py."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["search_spaces", "supernets", "strategies", "engine", "run"]
HYDRA_MAY = {ROOT / "engine" / "naming.py", ROOT / "run.py"}
FILES = [path for name in ORDER[:-1] for path in sorted((ROOT / name).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of every import, also of those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_what_stands_above_it(path: Path):
    place = ORDER.index(path.relative_to(ROOT).parts[0])
    assert not imported(path) & set(ORDER[place + 1 :])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_naming_and_run_know_hydra(path: Path):
    if path not in HYDRA_MAY:
        assert not imported(path) & {"hydra", "omegaconf"}


def test_space_knows_no_torch():
    assert "torch" not in imported(ROOT / "search_spaces" / "space.py")


def test_retraining_and_export_know_no_strategy():
    for name in ("retrain", "evaluate", "export"):
        assert "strategies" not in imported(ROOT / "engine" / f"{name}.py")
