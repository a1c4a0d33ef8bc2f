"""What a command imports: one that trains nothing starts without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "torch", "torchvision", "matplotlib", "sklearn", "scipy", "tensorboard", "onnx", "onnxscript",
    "onnxruntime", "pandas", "nni",
}  # fmt: skip
SCRIPT = "from archsmith.__main__ import main; main()"  # as in pyproject.toml
CODE = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from archsmith.cli.main import main
main()
"""


def imported_by(folder: Path, *arguments: str) -> tuple[int, set[str]]:
    """Exit code of a command line, and which of HEAVY its process imported."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, HEAVY & set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["task=list"], 0),
        (["task=serch"], 2),
        (["strategy=pcdart"], 2),
        (["serch.epochs=3"], 2),
        (["strategy=["], 2),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_trains_nothing_imports_nothing_heavy(tmp_path: Path, arguments: list[str], code: int):
    assert imported_by(tmp_path, *arguments) == (code, set())


def test_compare_imports_no_torch(tmp_path: Path):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "config.json").write_text("{}")
    assert imported_by(tmp_path, "task=compare", "runs=runs") == (0, {"scipy"})


@pytest.mark.slow
def test_a_search_imports_only_what_it_uses(tmp_path: Path):
    code, found = imported_by(
        tmp_path, "task=search", "data=synthetic", "data.size=48", "data.image_size=8",
        "space.layers=3", "space.nodes=1", "space.channels=4", "search.epochs=1",
        "search.batch_size=16", "runtime=reference",
    )  # fmt: skip
    assert (code, found) == (0, {"torch", "tensorboard"})


def test_c8_the_console_script_never_runs_the_users_modules_of_our_names(tmp_path: Path):
    assert 'archsmith = "archsmith.__main__:main"' in (ROOT / "pyproject.toml").read_text()
    for name in ("run.py", "supernets/__init__.py", "strategies.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('the user's own was run')")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "task=list"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([".", str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Strategies")
