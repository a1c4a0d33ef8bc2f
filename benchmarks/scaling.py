"""How the cost of a step grows with batch, cells and channels; draws `scaling.svg`.

`python benchmarks/scaling.py [--form auto] [--threads 1] [--n 3]` prints, per size, the median
seconds and peak MiB above base of a DARTS step (W1 with that one size changed), and the time for
each unit of the size relative to the smallest: 1 or less is linear or better.
"""

import argparse
import statistics
from pathlib import Path

import matplotlib
import torch
from step_time import seconds
from workloads import PAPER, memory, prepared

matplotlib.use("Agg")
from matplotlib import pyplot

SIZES = {"batch": [8, 16, 32, 64], "cells": [4, 8, 12, 16], "channels": [8, 16, 32, 64]}


def settings(name: str, size: int) -> tuple[list[str], int]:
    """Overrides and batch of W1 with one size changed."""
    changed = {"cells": "space.layers", "channels": "space.channels"}
    given = [f"{changed[name]}={size}"] if name in changed else []
    return [PAPER, "strategy=darts", *given], size if name == "batch" else 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--form", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--n", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, CPU, {args.threads} threads, form {args.form}, n = {args.n}")
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
