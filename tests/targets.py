"""The instruction sets that the native kernels are tested for."""

import platform
from pathlib import Path

# What the processor must list for the levels of the x86-64 psABI; v2 has only SSE.
FLAGS = {
    "x86-64-v2": {"ssse3", "sse4_1", "sse4_2", "popcnt"},
    "x86-64-v3": {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}
TARGETS = [*FLAGS] if platform.machine() == "x86_64" else ["native"]


def runs(target: str) -> bool:
    """Whether this processor can run code for the target; `native` it always can."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    found = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return FLAGS.get(target, set()) <= found
