"""Seconds and memory of one search step (alpha step, then weight step) in each form.

`python benchmarks/step_time.py [--quick] [--march x86-64-v3] [--threads 1] [--batch 16 64] [--n 3]
[--operations] [W1 ...]` prints tables: medians of n steps with minimum and maximum, the forms
interleaved in one process; processor seconds with one thread, else wall seconds; the ratio to
`public`, the reference form as the public implementations write it, which compute the gradients of
all weights in the alpha step; the peak memory of two steps in a fresh process, above one in which
everything is imported.

With `--device cuda` each form is measured alone: wall seconds after three steps, the peak of what
torch has reserved, pools of graphs included, and launches. `--alone` does so on the CPU.

`--march` builds the own kernels for another target, and holds torch to its instructions, as on a
processor of that kind. `--operations` counts torch's operations (on CUDA launches), and takes long.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from workloads import CUDA_FORMS, FORMS, WORKLOADS, memory, operations, prepared, print_alone

from supernets.native import build

# What holds torch and oneDNN to the instructions of a target.
LIMITS = {
    "x86-64-v2": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "x86-64-v3": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "x86-64-v4": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}
LEVELS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse4_2": "SSE4.2", "asimd": "NEON"}


def seconds(steps: dict[str, Callable[[], Any]], n: int) -> dict[str, list[float]]:
    """n timed rounds of all steps, after one that is not counted."""
    found: dict[str, list[float]] = {form: [] for form in steps}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for repeat in range(n + 1):
        for form, step in steps.items():
            start = clock()
            step()
            if repeat:
                found[form].append(clock() - start)
    return found


def processor() -> str:
    """Its model, and the widest vectors that it has."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    about = {name.strip(): value.strip() for name, value in lines.items()}
    flags = about.get("flags", about.get("Features", "")).split()
    level = next((level for flag, level in LEVELS.items() if flag in flags), "no vectors known")
    family = f"family {about['cpu family']} model {about['model']}, " * ("cpu family" in about)
    return f"{about.get('model name', platform.machine())} ({family}{level})"


def held_to(target: str) -> None:
    """Starts this script again with kernels and torch as on a processor of that kind."""
    wanted = {"ARCHSMITH_MARCH": target, **LIMITS.get(target, {})}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def measure(workload: str, batch: int, args: argparse.Namespace) -> None:
    about, overrides = WORKLOADS[workload]
    forms: list[str] = args.forms
    if workload == "W1b":  # public implementations differ from the reference in first order only
        forms = [form for form in forms if form != "public"]
    steps = {form: prepared(overrides, form, batch) for form in forms}
    found = seconds(steps, args.n)
    used = {form: memory(overrides, form, batch, args.threads) for form in forms}
    base, base_memory = statistics.median(found[forms[0]]), used[forms[0]]
    print(f"\n{workload}: {about}, batch {batch}\n")
    more = "operations |" * args.operations
    print(f"| form | s a step, median (min to max) | times faster | MiB | share |{more}")
    print("|---|---|---|---|---|" + "---|" * args.operations)
    for form in forms:
        times, median = found[form], statistics.median(found[form])
        print(
            f"| {form} | {median:.3f} ({min(times):.3f} to {max(times):.3f}) "
            f"| {base / median:.2f} | {used[form]:.0f} | {used[form] / base_memory:.2f} |"
            + (f" {operations(steps[form]):,} |" if args.operations else ""),
            flush=True,
        )


def measure_alone(workload: str, batch: int, args: argparse.Namespace) -> bool:
    about, overrides = WORKLOADS[workload]
    device = torch.device(args.device)
    print(f"\n{workload}: {about}, batch {batch}\n")
    made = {form: partial(prepared, overrides, form, batch, device=device) for form in args.forms}
    return print_alone(made, args.n, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[], help=", ".join(WORKLOADS))
    parser.add_argument("--quick", action="store_true", help="W1 and W2, two rounds")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--alone", action="store_true", help="as on CUDA")
    parser.add_argument("--forms", nargs="+", help="by default all")
    parser.add_argument("--n", type=int, default=3)
    parser.add_argument("--march", help=", ".join(LIMITS))
    parser.add_argument("--operations", action="store_true")
    args = parser.parse_args()
    if args.march:
        held_to(args.march)
    if args.quick:
        args.n = 2
    torch.set_num_threads(args.threads)
    about = f"torch {torch.__version__}, Python {platform.python_version()}, "
    if args.device == "cpu":
        args.forms = args.forms or (FORMS if build.library() else FORMS[:-1])
        clock = "processor" if args.threads == 1 else "wall"
        about += f"{processor()}, kernels for {build.target()}, {args.threads} threads, "
        about += f"{clock} seconds, compiler {build.compiler()}"
    else:
        args.forms, args.alone = args.forms or CUDA_FORMS, True
        torch.backends.cudnn.benchmark = True
        about += f"{torch.cuda.get_device_name(args.device)}, CUDA {torch.version.cuda}"
    print(f"{about}; float32 unless said, random 3x32x32 images, n = {args.n}")
    well = True
    for workload in args.workloads or (["W1", "W2"] if args.quick else list(WORKLOADS)[:-1]):
        for batch in args.batch:
            if args.alone:
                well = measure_alone(workload, batch, args) and well
            else:
                measure(workload, batch, args)
    sys.exit(not well)


if __name__ == "__main__":
    main()
