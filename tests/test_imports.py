"""Imports point one way: search_spaces <- supernets <- strategies <- archsmith <- run.py.

Within archsmith/ they do, too, in the order of ARCHSMITH; search and result do not know each other.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["search_spaces", "supernets", "strategies", "archsmith", "run"]
ARCHSMITH = [
    {"errors", "interrupt", "files", "differences", "numbers"},
    *({name} for name in ("parallel", "data", "train", "drawing")),
    {"search", "result"},
    *({name} for name in ("job", "phases", "cli")),
    {"library", "__main__", "__init__"},
]
HYDRA_MAY = {
    *(
        ROOT / "archsmith" / "cli" / name
        for name in ("naming.py", "objects.py", "command_line.py", "main.py", "tasks.py")
    ),
    ROOT / "archsmith" / "library.py",
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
    """What of archsmith/ a dotted name is in: a folder, or a module outside them."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_what_stands_above_it(path: Path):
    place = ORDER.index(path.relative_to(ROOT).parts[0])
    assert not imported(path) & set(ORDER[place + 1 :])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "archsmith").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_within_archsmith_nothing_imports_what_stands_above_it(path: Path):
    own = path.relative_to(ROOT / "archsmith").parts[0].removesuffix(".py")
    (place,) = (i for i, names in enumerate(ARCHSMITH) if own in names)
    above = set().union(*ARCHSMITH[place + 1 :])
    if own in ("search", "result"):  # neither knows of the other
        above |= ARCHSMITH[place] - {own}
    imports = {name for name in dotted(path) if name.startswith("archsmith.")}
    assert not {name for name in imports if part(name) in above}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_six_modules_know_hydra(path: Path):
    if path not in HYDRA_MAY:
        assert not imported(path) & {"hydra", "omegaconf"}


def test_space_knows_no_torch():
    assert "torch" not in imported(ROOT / "search_spaces" / "space.py")


def test_retraining_and_export_know_no_strategy():
    archsmith = ROOT / "archsmith"
    for path in (*archsmith.glob("result/**/*.py"), archsmith / "train" / "evaluate.py"):
        if path.name == "fit.py":  # asks the strategy for the best architecture within limits
            continue
        assert "strategies" not in imported(path), path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_that_windows_lacks_is_imported_with_a_module(path: Path):
    """`import fcntl` within a function that does without it there may stand."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = {a.name for node in body if isinstance(node, ast.Import) for a in node.names}
    assert not names & {"fcntl", "resource", "pwd", "grp", "termios"}
