"""Imports point one way: search_spaces <- supernets <- strategies <- engine <- run.py.

Within engine/ they do, too: modules that all use, the folders in the order of ENGINE, what puts a
run together, and the command line's side.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["search_spaces", "supernets", "strategies", "engine", "run"]
ENGINE = [
    {"errors", "garbage", "interrupt", "files", "differences", "numbers", "runtime", "evaluate"},
    *({name} for name in ("parallel", "data", "safety", "records", "final", "budget", "report")),
    {"search", "export"},
    {"job"},
    {"phases"},
    {"pipeline"},
    {"command"},
]
HYDRA_MAY = {
    ROOT / "engine" / "command" / name for name in ("naming.py", "objects.py", "command_line.py")
}
FILES = [path for name in ORDER[:-1] for path in sorted((ROOT / name).rglob("*.py"))]


def dotted(path: Path) -> set[str]:
    """Dotted names of every import, also of those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in dotted(path)}


def part(name: str) -> str:
    """What of engine/ a dotted name is in: a folder, or a module outside them."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_what_stands_above_it(path: Path):
    place = ORDER.index(path.relative_to(ROOT).parts[0])
    assert not imported(path) & set(ORDER[place + 1 :])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "engine").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_within_engine_nothing_imports_what_stands_above_it(path: Path):
    own = path.relative_to(ROOT / "engine").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    (place,) = (i for i, names in enumerate(ENGINE) if own in names)
    above = set().union(*ENGINE[place + 1 :])
    if own in ("search", "export"):  # neither knows of the other
        above |= ENGINE[place] - {own}
    assert not {name for name in dotted(path) if name.startswith("engine.") and part(name) in above}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_three_modules_and_run_know_hydra(path: Path):
    if path not in HYDRA_MAY:
        assert not imported(path) & {"hydra", "omegaconf"}


def test_space_knows_no_torch():
    assert "torch" not in imported(ROOT / "search_spaces" / "space.py")


def test_retraining_and_export_know_no_strategy():
    engine = ROOT / "engine"
    for path in (*engine.glob("final/*.py"), *engine.glob("export/*.py"), engine / "evaluate.py"):
        assert "strategies" not in imported(path), path
