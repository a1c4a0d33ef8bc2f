"""How the cost of a step grows with batch, cells and channels; draws `scaling.svg`.

`python benchmarks/scaling.py [--form auto] [--threads 1] [--n 3]` prints, per size, the median
seconds and peak MiB above base of a DARTS step (W1 with that one size changed), and the time for
each unit of the size relative to the smallest: 1 or less is linear or better.

`--processes 1 2 [--workload W1] [--batch 32] [--device cpu]` prints instead the wall seconds of a
step of so many processes on one machine, of the same batch of all together, with local and with
synchronised batch norms.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import torch
from step_time import seconds
from workloads import PAPER, ROOT, WORKLOADS, memory, prepared

from archsmith.parallel import distributed
from archsmith.parallel.devices import local_device
from archsmith.train.runtime import synchronize

matplotlib.use("Agg")
from matplotlib import pyplot

SIZES = {"batch": [8, 16, 32, 64], "cells": [4, 8, 12, 16], "channels": [8, 16, 32, 64]}


def settings(name: str, size: int) -> tuple[list[str], int]:
    """Overrides and batch of W1 with one size changed."""
    changed = {"cells": "space.layers", "channels": "space.channels"}
    given = [f"{changed[name]}={size}"] if name in changed else []
    return [PAPER, "strategy=darts", *given], size if name == "batch" else 16


def timed(args: argparse.Namespace) -> None:
    """Runs in each process: rank 0 prints the seconds of n steps after three, as JSON."""
    distributed.start()
    distributed.sync_batch_norm = args.synchronised
    device = torch.device(local_device(args.device))
    if device.index is not None:
        torch.cuda.set_device(device)
    form, *extras = args.form.split("+")
    if args.synchronised and form != "reference":
        form = "fused"
    overrides = WORKLOADS[args.workload][1]
    step, found = prepared(overrides, "+".join([form, *extras]), args.batch, device), []
    for repeat in range(args.n + 3):
        synchronize(device)
        began = time.perf_counter()
        step()
        synchronize(device)
        found += [time.perf_counter() - began] if repeat > 2 else []
    print(json.dumps(found), flush=True)
    distributed.finish()


def of_processes(count: int, more: list[str]) -> list[float]:
    """What `timed` prints, of so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in range(count):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "PYTHONPATH": ROOT}
        started.append(
            subprocess.Popen(
                [sys.executable, __file__, "--timed", *more], stdout=subprocess.PIPE, text=True,
                env=os.environ | address | {name: str(value) for name, value in place.items()},
            )
        )  # fmt: skip
    said = [process.communicate()[0] for process in started]
    found: list[float] = json.loads(said[0].splitlines()[-1])
    return found


def over_processes(args: argparse.Namespace) -> None:
    print("\n| batch norms | processes | s a step, median (min to max) | times faster |")
    print("|---|---|---|---|")
    given = [f"--{name}={getattr(args, name)}" for name in ("form", "threads", "n", "workload")]
    given += [f"--{name}={getattr(args, name)}" for name in ("batch", "device")]
    for norms, more in (("local", []), ("synchronised", ["--synchronised"])):
        base = None
        for count in args.processes:
            times = of_processes(count, [*given, *more])
            median = statistics.median(times)
            base = base or median
            print(
                f"| {norms} | {count} | {median:.3f} ({min(times):.3f} to {max(times):.3f}) "
                f"| {base / median:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--form", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--n", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+")
    parser.add_argument("--workload", default="W1", help=", ".join(WORKLOADS))
    parser.add_argument("--batch", type=int, default=32, help="of all processes together")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--synchronised", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.timed:
        timed(args)
        return
    print(f"torch {torch.__version__}, {args.threads} threads, form {args.form}, n = {args.n}")
    if args.processes:
        over_processes(args)
        return
    figure, axes = pyplot.subplots(1, len(SIZES), figsize=(10, 3), layout="constrained")
    for axis, (name, sizes) in zip(axes, SIZES.items(), strict=True):
        print(f"\n| {name} | s | s per unit, of the first | MiB |\n|---|---|---|---|")
        medians = []
        for size in sizes:
            overrides, batch = settings(name, size)
            found = seconds({args.form: prepared(overrides, args.form, batch)}, args.n)
            medians.append(statistics.median(found[args.form]))
            share = medians[-1] / size / (medians[0] / sizes[0])
            used = memory(overrides, args.form, batch, args.threads)
            print(f"| {size} | {medians[-1]:.3f} | {share:.2f} | {used:.0f} |", flush=True)
        axis.plot(sizes, medians, "o-")
        axis.set(xlabel=name, ylabel="seconds a step", xlim=(0, None), ylim=(0, None))
    figure.savefig(Path(__file__).with_name("scaling.svg"))


if __name__ == "__main__":
    main()
