"""A wheel, installed without the source folder, works from any other folder; what the Dockerfile
copies, which builds the same wheel."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import numpy
import pytest
from helpers import ROOT
from PIL import Image
from test_command_line import TINY

PACKAGES = ("archsmith", "conf", "hydra_plugins", "search_spaces", "strategies", "supernets")
NEEDED = ("pyproject.toml", "README.md", "LICENSE", *PACKAGES)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built of a copy, so that nothing is left in the source folder."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / "source" / name)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, "-m", "pip", *build, folder / "source"], check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """The folder of programs of an environment with the wheel alone; the dependencies are those of
    this one, by a `.pth` file, which does not carry over the source folder of an editable
    installation."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel]
    pip = [sys.executable, "-m", "pip", "--python", python, *install]
    subprocess.run(pip, check=True, env=alone())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def alone() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.slow
def test_a_file_of_every_kind_is_in_the_wheel(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    missing = {
        name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and not {"__pycache__"} & set(path.parts)
        and path.suffix not in (".so", ".pyc")
        and (name := str(path.relative_to(ROOT))) not in names
    }
    assert missing == set()
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]


@pytest.mark.slow
def test_what_is_installed_runs_from_another_folder(installed: Path, tmp_path: Path):
    def said(*words: str) -> str:
        done = subprocess.run(
            [installed / words[0], *words[1:]],
            cwd=tmp_path,
            env=alone(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = said("python", "-c", "import archsmith, conf, sys; print(archsmith.__file__, sys.path)")
    assert str(installed.parent) in where.split()[0]
    assert str(ROOT) not in re.sub(rf"{re.escape(sysconfig.get_path('purelib'))}", "", where)
    assert "task=predict" in said("archsmith", "--help")
    assert "pcdarts" in said("archsmith", "task=list")
    out = said("archsmith", *TINY)
    (run,) = (tmp_path / "outputs").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert 0 <= results["test_accuracy"] <= 1
    assert (run / "export" / "model.py").is_file()
    assert (run / "report.html").is_file()
    assert "python run.py" not in out  # the next commands are those of what is installed
    pixels = numpy.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    line = said("archsmith", "task=predict", f"architecture={run}", "images=photo.png")
    label = re.search(r"^photo\.png: (.+) \(", line, re.M)
    assert label is not None
    assert label[1] in json.loads((run / "export" / "export.json").read_text())["classes"]


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument of each line of the Dockerfile, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(name, argument) for name, argument in words]


def test_the_dockerfile_has_a_stage_for_cpu_and_one_for_cuda():
    """It cannot be built here: this checks what its lines say."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for name, argument in instructions():
        if name == "FROM":
            base, stage = re.fullmatch(r"(\S+) AS (\w+)", argument).groups()
            assert base in stages or base == "python:${PYTHON}-slim"
            stages[stage] = [*stages.get(base, [])]
        elif stages:
            stages[stage].append((name, argument))
    for stage in ("cpu", "cuda"):
        said = dict(stages[stage])
        assert stages[stage][-1] == ("USER", "archsmith")
        assert json.loads(said["ENTRYPOINT"]) == ["archsmith"]
        installs = [one for name, one in stages[stage] if name == "RUN" and "pip install" in one]
        assert all("--constraint /wheels/constraints.txt" in one for one in installs)


def test_the_dockerfile_copies_what_the_wheel_needs():
    copied = {
        source
        for name, argument in instructions()
        if name == "COPY" and not argument.startswith("--from")
        for source in argument.split()[:-1]
    }
    assert copied == {*NEEDED, "constraints.txt"}
    assert all((ROOT / name).exists() for name in copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if "!" in line}
    assert kept == copied
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {name.rstrip("*") for name in settings["packages"]["find"]["include"]} == set(PACKAGES)
