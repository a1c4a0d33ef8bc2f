"""Seconds and memory of one search step (alpha step, then weight step) in each form.

`python benchmarks/step_time.py [--quick] [--device cuda] [--threads 2] [--batch 16] [--n 5] [W1]`
prints tables: medians of n steps with minimum and maximum, the forms interleaved in one process;
the ratio to `public`, the reference form as the public implementations write it, which compute the
gradients of all weights in the alpha step; the peak memory of two steps (on CUDA of four) in a
fresh process, above one in which everything is imported; operations, on CUDA launches.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from workloads import CPU, CUDA_FORMS, FORMS, WORKLOADS, memory, operations, prepared

from engine.runtime import synchronize
from supernets.native import build


def seconds(
    steps: dict[str, Callable[[], Any]], n: int, device: torch.device = CPU
) -> dict[str, list[float]]:
    """n timed rounds of all steps, after one that is not counted; on CUDA three, since the second
    captures graphs."""
    found: dict[str, list[float]] = {form: [] for form in steps}
    first = 1 if device.type == "cpu" else 3
    for repeat in range(n + first):
        for form, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            if repeat >= first:
                found[form].append(time.perf_counter() - start)
    return found


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(workload: str, forms: list[str], args: argparse.Namespace) -> None:
    about, overrides = WORKLOADS[workload]
    if workload == "W1b":  # public implementations differ from the reference in first order only
        forms = [form for form in forms if form != "public"]
    device = torch.device(args.device)
    steps = {form: prepared(overrides, form, args.batch, device=device) for form in forms}
    found = seconds(steps, args.n, device)
    used = {form: memory(overrides, form, args.batch, args.threads, device) for form in forms}
    base, base_memory = statistics.median(found[forms[0]]), used[forms[0]]
    print(f"\n{workload}: {about}, batch {args.batch}\n")
    print("| form | s a step, median (min to max) | times faster | MiB | share | operations |")
    print("|---|---|---|---|---|---|")
    for form in forms:
        times, median = found[form], statistics.median(found[form])
        print(
            f"| {form} | {median:.3f} ({min(times):.3f} to {max(times):.3f}) "
            f"| {base / median:.2f} | {used[form]:.0f} | {used[form] / base_memory:.2f} "
            f"| {operations(steps[form], device):,} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[], help=", ".join(WORKLOADS))
    parser.add_argument("--quick", action="store_true", help="W1 and W2, two rounds")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--n", type=int, default=3)
    args = parser.parse_args()
    if args.quick:
        args.n = 2
    torch.set_num_threads(args.threads)
    about = f"torch {torch.__version__}, Python {platform.python_version()}, "
    if args.device == "cpu":
        forms = FORMS if build.library() else FORMS[:-1]
        about += f"{processor()}, {args.threads} threads, compiler {build.compiler()}"
    else:
        forms = CUDA_FORMS
        torch.backends.cudnn.benchmark = True
        about += f"{torch.cuda.get_device_name(args.device)}, CUDA {torch.version.cuda}"
    print(f"{about}; float32 unless said, random 3x32x32 images, n = {args.n}")
    for workload in args.workloads or (["W1", "W2"] if args.quick else list(WORKLOADS)):
        measure(workload, forms, args)


if __name__ == "__main__":
    main()
