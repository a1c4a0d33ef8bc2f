"""Imports point one way: search_spaces <- supernets <- strategies <- archsmith <- run.py.

Within archsmith/ they do, too, in the order of ARCHSMITH; search and result do not know each other.
"""

import ast
import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["search_spaces", "supernets", "strategies", "archsmith", "run"]
ARCHSMITH = [
    {"errors", "interrupt", "files", "differences"},
    *({name} for name in ("parallel", "data", "loggers", "train", "drawing")),
    {"search", "result"},
    *({name} for name in ("job", "phases", "cli")),
    {"library", "__main__", "__init__"},
]
HYDRA_MAY = {
    *(
        ROOT / "archsmith" / "cli" / name
        for name in (
            "naming.py",
            "objects.py",
            "settings.py",
            "command_line.py",
            "main.py",
            "tasks.py",
            "sweep.py",
        )
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


def offenders(wrong: Callable[[Path], set[str]], files: Iterable[Path] = FILES) -> dict:
    """File -> what it imports and may not."""
    found = {str(path.relative_to(ROOT)): wrong(path) for path in files}
    return {name: names for name, names in found.items() if names}


def test_nothing_imports_what_stands_above_it():
    def above(path: Path) -> set[str]:
        place = ORDER.index(path.relative_to(ROOT).parts[0])
        return imported(path) & set(ORDER[place + 1 :])

    assert offenders(above) == {}


def test_within_archsmith_nothing_imports_what_stands_above_it():
    def above(path: Path) -> set[str]:
        own = path.relative_to(ROOT / "archsmith").parts[0].removesuffix(".py")
        (place,) = (i for i, names in enumerate(ARCHSMITH) if own in names)
        higher = set().union(*ARCHSMITH[place + 1 :])
        if own in ("search", "result"):  # neither knows of the other
            higher |= ARCHSMITH[place] - {own}
        imports = {name for name in dotted(path) if name.startswith("archsmith.")}
        return {name for name in imports if part(name) in higher}

    assert offenders(above, sorted((ROOT / "archsmith").rglob("*.py"))) == {}


def test_only_eight_modules_know_hydra():
    known = offenders(lambda path: imported(path) & {"hydra", "omegaconf"})
    assert {ROOT / name for name in known} == HYDRA_MAY


def test_space_knows_no_torch():
    assert "torch" not in imported(ROOT / "search_spaces" / "space.py")


def test_retraining_and_export_know_no_strategy():
    """They share with strategies the schedules of a learning rate, functions of the epoch, and how
    the gradients of a pass are computed."""
    archsmith = ROOT / "archsmith"
    for path in (*archsmith.glob("result/**/*.py"), archsmith / "train" / "evaluate.py"):
        if path.name == "fit.py":  # asks the strategy for the best architecture within limits
            continue
        known = path.read_text(encoding="utf-8")
        for name in ("schedules", "gradients"):
            known = known.replace(f"from strategies.{name} import", "")
        assert "from strategies" not in known, path
        assert "import strategies" not in known, path


def test_nothing_that_windows_lacks_is_imported_with_a_module():
    """`import fcntl` within a function that does without it there may stand."""

    def posix(path: Path) -> set[str]:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = {a.name for node in body if isinstance(node, ast.Import) for a in node.names}
        return names & {"fcntl", "resource", "pwd", "grp", "termios"}

    assert offenders(posix) == {}


SETTING = r"\b(strategy|space|search|data|retrain|runtime|budget|benchmark|baseline|export)\.[a-z]"


def test_only_archsmith_names_the_paths_of_settings():
    """The code that builds or calls an object knows where its settings are (`located`)."""

    def named(path: Path) -> set[str]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bodies = (node for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list))
        docs = {id(body.body[0].value) for body in bodies if is_docstring(body)}
        literals = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
        }
        return {text for text in literals if re.search(SETTING, text)}

    lower = [path for path in FILES if path.relative_to(ROOT).parts[0] != "archsmith"]
    assert offenders(named, lower) == {}


def is_docstring(node: ast.AST) -> bool:
    """Whether a module, class or function has a docstring."""
    known = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, known) and ast.get_docstring(node) is not None


# What may know that the rows of a choice are edges of cells.
CELL_FAMILY = {
    *("search_spaces/cells.py", "search_spaces/chains.py", "search_spaces/darts.py"),
    "search_spaces/entangled_cell.py",
    *("search_spaces/nasbench201.py", "search_spaces/goldnas.py", "search_spaces/genotype.py"),
    "search_spaces/layers.py",
    *(
        "supernets/blueprint.py",
        "supernets/network.py",
        "supernets/final.py",
        "supernets/fused.py",
        "supernets/forms.py",
        "supernets/lanes.py",
        "supernets/packed.py",
    ),
    "archsmith/result/export/standalone.py",  # copies a network
}


def test_only_the_cell_family_reads_edges():
    """Everything else sees choices, rows and options."""

    def read(path: Path) -> set[str]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        return nodes & {"edges", "cells", "strided"} | {
            name for name in dotted(path) if name.startswith("search_spaces.cells.")
        }

    native = ROOT / "supernets" / "native"
    others = [
        p for p in FILES if str(p.relative_to(ROOT)) not in CELL_FAMILY and native not in p.parents
    ]
    assert offenders(read, others) == {}
