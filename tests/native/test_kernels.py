"""The native kernels against a naive reference in double precision, by a C++ program.

It runs under an address and an undefined-behaviour sanitiser, as built for use, and for aarch64 in
an emulator, for every target that this machine can run.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
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
Compiled = Callable[[str, Sequence[str]], Path]
QUICK, MORE, ALL = 127, 7, 1  # every so many-th case

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler on this machine")


@pytest.fixture
def compiled(pytestconfig: pytest.Config) -> Compiled:
    """Compiles the program by a compiler with some flags; kept in pytest's cache, since it takes
    half a minute, until a source changes."""
    folder = pytestconfig.cache.mkdir("kernels")

    def program(compiler: str, flags: Sequence[str]) -> Path:
        found = folder / digest(compiler, flags)
        if not found.exists():
            made = found.with_suffix(f".{os.getpid()}")
            sources = [f"-I{NATIVE}", HERE / "check_kernels.cpp", reference(compiler, folder)]
            subprocess.run([compiler, *flags, *sources, "-o", made], check=True)
            made.replace(found)
        return found

    return program


def digest(compiler: str, flags: Sequence[str]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    sources = [path.read_bytes() for at in (NATIVE, HERE) for path in sorted(at.glob("*.[hc]*"))]
    return hashlib.sha256(b"\n".join([version, " ".join(flags).encode(), *sources])).hexdigest()


def reference(compiler: str, folder: Path) -> Path:
    """Without the flags and once for all targets, since it is not what is tested."""
    found = folder / f"reference-{digest(compiler, [])}.o"
    if not found.exists():
        made = found.with_suffix(f".{os.getpid()}.o")
        plain = [compiler, "-O1", "-std=c++17", f"-I{NATIVE}", "-c", HERE / "reference.cpp"]
        subprocess.run([*plain, "-o", made], check=True)
        made.replace(found)
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
def test_under_sanitisers(target: str, every: int, compiled: Compiled):
    program = compiled(str(build.compiler()), [*SANITISED, f"-march={target}"])
    passes(program, every)


@pytest.mark.slow
@pytest.mark.parametrize("every", [MORE, pytest.param(ALL, marks=pytest.mark.exhaustive)])
def test_as_built_for_use(target: str, every: int, compiled: Compiled):
    program = compiled(str(build.compiler()), used_flags(target))
    passes(program, every)


def used_flags(target: str) -> list[str]:
    """The flags of the library for this target, without those that make it a library."""
    flags = [flag for flag in build.FLAGS if flag not in ("-shared", "-fPIC")]
    return [*flags, f"-march={target}"]


@pytest.mark.slow
def test_on_aarch64(compiled: Compiled):
    compiler, emulator = (shutil.which(n) for n in ("aarch64-linux-gnu-g++", "qemu-aarch64"))
    if platform.machine() == "aarch64":
        pytest.skip("the other tests run on aarch64 itself")
    if compiler is None or emulator is None:
        pytest.skip(
            "needs aarch64-linux-gnu-g++ and qemu-aarch64 (g++-aarch64-linux-gnu, qemu-user)"
        )
    program = compiled(compiler, [*used_flags("armv8-a"), "-static"])
    passes(emulator, program, QUICK)
