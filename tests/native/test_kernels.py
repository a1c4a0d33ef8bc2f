"""The native kernels against a naive reference in double precision, by a C++ program.

It runs under an address and an undefined-behaviour sanitiser, as built for use, and for aarch64 in
an emulator, for every target that this machine can run.
"""

import functools
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from targets import TARGETS, runs

from supernets.native import build

HERE = Path(__file__).parent
NATIVE = Path(build.__file__).parent
SANITISED = ["-Og", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SANITISED += ["-std=c++17", "-fopenmp", "-Wno-psabi"]
# Without these it compiles for minutes. The address sanitiser or the processor finds bad addresses
# too, and the kernels keep no address of a local beyond its scope.
SANITISED += ["-fno-sanitize=null,object-size,pointer-overflow,alignment"]
SANITISED += ["-fno-sanitize-address-use-after-scope"]
SANITISED += ["--param", "asan-instrumentation-with-call-threshold=0"]
# An arena that lives as long as the process, and OpenMP's threads, are no leaks.
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0", "OMP_WAIT_POLICY": "passive"}
QUICK, MORE, ALL = 61, 7, 1  # every so many-th case

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler on this machine")


def compiled(compiler: str, flags: Sequence[str], folder: Path) -> Path:
    program = folder / "check_kernels"
    sources = [f"-I{NATIVE}", HERE / "check_kernels.cpp", reference(compiler, folder.parent)]
    subprocess.run([compiler, *flags, *sources, "-o", program], check=True)
    return program


@functools.cache
def reference(compiler: str, folder: Path) -> Path:
    """Without the flags and once for all targets, since it is not what is tested."""
    found = folder / f"reference-{Path(compiler).name}.o"
    plain = [compiler, "-O1", "-std=c++17", f"-I{NATIVE}", "-c", HERE / "reference.cpp"]
    subprocess.run([*plain, "-o", found], check=True)
    return found


def passes(*command: str | Path | int) -> None:
    run = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    print(run.stdout)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[:4000]}"


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    if not runs(request.param):
        pytest.skip(f"this processor cannot run {request.param}")
    return request.param


@pytest.mark.parametrize("every", [QUICK, pytest.param(ALL, marks=pytest.mark.exhaustive)])
def test_under_sanitisers(target: str, every: int, tmp_path: Path):
    program = compiled(str(build.compiler()), [*SANITISED, f"-march={target}"], tmp_path)
    passes(program, every)


@pytest.mark.slow
@pytest.mark.parametrize("every", [MORE, pytest.param(ALL, marks=pytest.mark.exhaustive)])
def test_as_built_for_use(target: str, every: int, tmp_path: Path):
    program = compiled(str(build.compiler()), used_flags(target), tmp_path)
    passes(program, every)


def used_flags(target: str) -> list[str]:
    """The flags of the library for this target, without those that make it a library."""
    flags = [flag for flag in build.FLAGS if flag not in ("-shared", "-fPIC")]
    return [*flags, f"-march={target}"]


@pytest.mark.slow
def test_on_aarch64(tmp_path: Path):
    compiler, emulator = (shutil.which(n) for n in ("aarch64-linux-gnu-g++", "qemu-aarch64"))
    if platform.machine() == "aarch64":
        pytest.skip("the other tests run on aarch64 itself")
    if compiler is None or emulator is None:
        pytest.skip(
            "needs aarch64-linux-gnu-g++ and qemu-aarch64 (g++-aarch64-linux-gnu, qemu-user)"
        )
    program = compiled(compiler, [*used_flags("armv8-a"), "-static"], tmp_path)
    passes(emulator, program, QUICK)
