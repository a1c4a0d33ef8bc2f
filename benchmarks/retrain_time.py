"""Seconds of a retraining step and of an evaluated batch in torch eager and by the native kernels.

`python benchmarks/retrain_time.py [--quick] [--threads 2] [--batch 64] [--n 5] [DARTS_V2 ...]`
prints tables: processor and wall seconds, medians of n with minimum and maximum, the forms
interleaved in one process, and the ratio to the reference, which is torch eager as the exported
`model.py` runs. The networks have 8 cells of 16 channels; a step has the auxiliary head, drop-path
and clipping of `retrain=cifar`.

`PC_DARTS_cifar --device cuda [--layers 20] [--channels 36] [--batch 96]` measures a step in float32
and bfloat16, with and without CUDA graphs, and channels last, each alone (`workloads.alone`);
`--alone` does so on the CPU.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from step_time import processor
from workloads import CPU, capturing, print_alone

from archsmith.result.recipe import Recipe
from archsmith.result.retrain import Retraining
from archsmith.train.runtime import describe_device
from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.genotype import published
from supernets.forms import use_form
from supernets.native import build
from supernets.network import Network, final_network

FORMS = ["reference", "native"]
RECIPE = Recipe(
    layers=8, channels=16, stem=None, epochs=600, batch_size=64, lr=0.025, min_lr=0.0,
    schedule="cosine", warmup_epochs=0, momentum=0.9, nesterov=False, weight_decay=3e-4, clip=5.0,
    label_smoothing=0.0, auxiliary_weight=0.4, drop_path=0.2, crop=0, flip=False, cutout=0,
    ema=None, precision="float32",
)  # fmt: skip


CUDA_FORMS = [
    "float32",
    "float32+graphs",
    "bfloat16",
    "bfloat16+graphs",
    "bfloat16+graphs+channels_last",
]


def network(name: str, form: str, recipe: Recipe = RECIPE) -> Network:
    torch.manual_seed(0)
    space = darts(
        layers=recipe.layers,
        nodes=4,
        channels=recipe.channels,
        candidates=list(CANDIDATES),
        input_shape=(3, 32, 32),
        classes=10,
    )
    net = final_network(space, Architecture.load(published(name)), auxiliary=True)
    use_form(net, form, CPU)
    return net


def passes(name: str, form: str, batch: int) -> dict[str, Callable[[], Any]]:
    """A training step, and a batch evaluated."""
    trained, evaluated = network(name, form).train(), network(name, form).eval()
    trained.set_drop_path(RECIPE.drop_path)
    training = Retraining(trained, [], RECIPE)  # type: ignore[arg-type]
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    return {
        "training step": lambda: training.train_step((x, y)),
        "evaluation": lambda: torch.inference_mode()(evaluated)(x),
    }


def step(name: str, form: str, recipe: Recipe, device: torch.device) -> Callable[[], Any]:
    """A training step of a CUDA form, in the second epoch, in which paths are dropped."""
    precision, *extras = form.split("+")
    net = network(name, "reference", recipe).to(device).train()
    last = "channels_last" in extras and device.type == "cuda"
    use_form(net, "auto" if device.type == "cuda" else "reference", device, channels_last=last)
    training = Retraining(net, [], replace(recipe, precision=precision))  # type: ignore[arg-type]
    training.epoch = 1
    net.set_drop_path(recipe.drop_path)
    if "graphs" in extras:
        training.replay(capturing(device))
    x = torch.randn(recipe.batch_size, 3, 32, 32, device=device)
    y = torch.randint(10, (recipe.batch_size,), device=device)
    return lambda: training.train_step((x, y))


def seconds(runs: dict[str, Callable[[], Any]], n: int) -> dict[str, list[tuple[float, float]]]:
    """Processor and wall seconds of n rounds, after one that is not counted."""
    found: dict[str, list[tuple[float, float]]] = {form: [] for form in runs}
    for repeat in range(n + 1):
        for form, run in runs.items():
            start = time.process_time(), time.perf_counter()
            run()
            used = time.process_time() - start[0], time.perf_counter() - start[1]
            if repeat:
                found[form].append(used)
    return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def measure(name: str, args: argparse.Namespace) -> None:
    every = {form: passes(name, form, args.batch) for form in FORMS}
    print(f"\n{name}, 8 cells, C = 16, batch {args.batch}\n")
    print("| | form | processor s, median (min to max) | wall s | times faster |")
    print("|---|---|---|---|---|")
    for what in every[FORMS[0]]:
        found = seconds({form: every[form][what] for form in FORMS}, args.n)
        base = statistics.median(cpu for cpu, _ in found[FORMS[0]])
        for form in FORMS:
            used, wall = (list(column) for column in zip(*found[form], strict=True))
            faster = base / statistics.median(used)
            row = what, form, spread(used), spread(wall), f"{faster:.2f}"
            print(f"| {' | '.join(row)} |", flush=True)


def measure_alone(args: argparse.Namespace) -> bool:
    device = torch.device(args.device)
    torch.backends.cudnn.benchmark = True
    well, sizes = True, {"layers": args.layers, "channels": args.channels, "batch_size": args.batch}
    recipe = replace(RECIPE, **sizes)
    print(f"torch {torch.__version__}, {describe_device(device)}, n = {args.n}")
    for name in args.names:
        size = f"{args.layers} cells, C = {args.channels}, batch {args.batch}"
        print(f"\nretraining {name}, {size}\n")
        made = {form: partial(step, name, form, recipe, device) for form in CUDA_FORMS}
        well = print_alone(made, args.n, device) and well
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["DARTS_V2"], help="published architectures")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--alone", action="store_true", help="as on CUDA")
    parser.add_argument("--layers", type=int, default=RECIPE.layers)
    parser.add_argument("--channels", type=int, default=RECIPE.channels)
    parser.add_argument("--n", type=int, default=5)
    args = parser.parse_args()
    args.n = 2 if args.quick else args.n
    torch.set_num_threads(args.threads)
    if args.alone or args.device != "cpu":
        sys.exit(not measure_alone(args))
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {processor()}, "
        f"{args.threads} threads, compiler {build.compiler()}; float32, random 3x32x32 images, "
        f"n = {args.n}; times faster in processor seconds"
    )
    for name in args.names:
        measure(name, args)


if __name__ == "__main__":
    main()
