"""Compiles `kernels.cpp` once per machine and source, into a cache, with one call of a compiler.

The library has a plain C interface and no torch headers, so it builds in seconds and fits every
torch version. torch's own extension loader was left out: it needs ninja on the path, and a build
that is interrupted leaves a lock at which all later ones wait for ever. Here processes build side
by side and the last rename wins.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ["-O2", "-std=c++17", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-ffp-contract=fast", "-Wno-psabi", "-fopenmp", "-fPIC", "-shared"]


def compiler() -> str | None:
    """The C++ compiler: $CXX, or the first of the usual names that is found."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    return next((found for name in names if (found := shutil.which(name))), None)


def target() -> str:
    """What the kernels are built for, as the compiler's `-march` names it: $ARCHSMITH_MARCH, or the
    processor at hand. It decides how wide a vector is (lanes.h)."""
    return os.environ.get("ARCHSMITH_MARCH") or "native"


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, built where they were not; None, after one line in the log, without a compiler
    or where it fails."""
    found = compiler()
    if found is None:
        log.warning(
            "native form: no C++ compiler found, so cells run as torch operations, which takes "
            "several times as long; install g++ or clang, or name one in CXX"
        )
        return None
    try:
        loaded = ctypes.CDLL(str(_built(found)))
        if loaded.runs_here():
            return loaded
        raise OSError(f"this processor cannot run ARCHSMITH_MARCH={target()}; leave it out")
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        log.warning(
            "native form: %s cannot build the kernels, so cells run as torch operations, which "
            "takes several times as long: %s",
            found,
            said.strip().splitlines()[-1] if said.strip() else type(error).__name__,
        )
        return None


def _built(found: str) -> Path:
    """The shared library of this source, compiler, target and processor."""
    flags = [*FLAGS, f"-march={target()}"]
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    code = [path.read_text() for path in (SOURCE, *sorted(SOURCE.parent.glob("*.h")))]
    key = hashlib.sha256("\n".join([version.stdout, *flags, _processor(), *code]).encode())
    path = _cache() / f"kernels-{key.hexdigest()[:16]}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [found, *flags, str(SOURCE), "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            made.replace(path)
    return path


def _cache() -> Path:
    """Where torch keeps built extensions, or would."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen or Path(base) / "torch_extensions") / "archsmith"


def _processor() -> str:
    """What decides which instructions `-march=native` may use."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() + platform.machine()
    return "".join(
        line for line in sorted(set(info.read_text().splitlines())) if line.startswith("flags")
    )
