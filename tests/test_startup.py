"""What a command imports: one that trains nothing starts without torch."""

import json
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
import json, sys
from hydra.core.global_hydra import GlobalHydra
from archsmith.cli import main as run
for line in json.loads(sys.argv.pop()):
    GlobalHydra.instance().clear()
    run.composed.clear()
    sys.argv[1:] = line
    code = 0
    try:
        run.main()
    except SystemExit as stop:
        code = stop.code or 0
    print("found:", code, *sys.modules, file=sys.stderr)
"""
LINES = {
    "--help": 0,
    "task=list": 0,
    "task=serch": 2,
    "strategy=pcdart": 2,
    "serch.epochs=3": 2,
    "strategy=[": 2,
}


def imported_by(folder: Path, *lines: list[str]) -> list[tuple[int, set[str]]]:
    """Exit code of each command line, and which of HEAVY its process had imported by then."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(lines)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    said = [line.split() for line in done.stderr.splitlines() if line.startswith("found: ")]
    return [(int(code), HEAVY & set(modules)) for _, code, *modules in said]


@pytest.mark.slow
def test_what_trains_nothing_imports_nothing_heavy(tmp_path: Path):
    """The lines one after another in a process."""
    found = imported_by(tmp_path, *([line] for line in LINES))
    assert dict(zip(LINES, found, strict=True)) == {
        line: (code, set()) for line, code in LINES.items()
    }


@pytest.mark.slow
def test_compare_imports_no_torch(tmp_path: Path):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "config.json").write_text("{}")
    assert imported_by(tmp_path, ["task=compare", "runs=runs"]) == [(0, {"pandas"})]


@pytest.mark.slow
def test_a_search_imports_only_what_it_uses(tmp_path: Path):
    line = [
        "task=search", "data=synthetic", "data.size=48", "data.image_size=8", "space.layers=3",
        "space.nodes=1", "space.channels=4", "search.epochs=1", "search.batch_size=16",
        "runtime=reference",
    ]  # fmt: skip
    assert imported_by(tmp_path, line) == [(0, {"torch", "tensorboard"})]


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
    assert done.stdout.startswith("strategy=...\n")
