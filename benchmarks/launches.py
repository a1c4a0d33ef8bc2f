"""Counts the operations of one search step, each of which a GPU launches as a kernel or several.

`python benchmarks/launches.py [--batch 64] [--names] [W1 W1b W2 W3]` runs an alpha pass, a weight
pass and both optimisers once on meta tensors, which have shapes and no values, in the form that a
GPU gets, and prints the ATen operations by kind. Views and allocations launch nothing and do not
count; an operation on a list of tensors (foreach) counts once.
"""

import argparse
from collections import Counter
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode
from workloads import PAPER, STILL, prepared

META = torch.device("meta")
WORKLOADS = {
    "darts": [PAPER, "strategy=darts", STILL],
    "pcdarts": [PAPER, "strategy=pcdarts", STILL],
    "darts_second_order": [PAPER, "strategy=darts_second_order", STILL],
    "nasbench201": [PAPER, "strategy=darts", STILL, "space=nasbench201"],
}
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
UNLAUNCHED = (*ALLOCATIONS, "_unsafe_view", "promote_types")
# kind -> what the names of its operations hold; the first that fits
KINDS = {
    "for all tensors": ("_foreach", "_fused"),
    "convolutions": ("convolution",),
    "matrix products": ("mm", "addmm", "bmm"),
    "batch norms": ("batch_norm", "var_mean"),
    "pools": ("pool",),
    "copies": ("cat", "clone", "copy", "stack", "pad", "select_backward", "slice_backward"),
    "zeros and ones": ("zeros", "ones", "full", "zero_", "fill", "scalar_tensor"),
    "sums": ("sum", "mean"),
    "adds and products": ("add", "mul", "sub", "div", "where", "lerp"),
    "ReLUs": ("relu", "threshold"),
}


class Launches(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if not (func.is_view or name in UNLAUNCHED or name.startswith("_record_function")):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def launches(overrides: list[str], batch: int) -> Counter[str]:
    """Name of an operation -> how often one step launches it on a GPU."""
    step = prepared(overrides, "fused", batch, device=META)
    step()  # makes moments, places of gates and plans
    # torch clips on meta tensors one by one, on a GPU all together
    grouped = patch.object(clip_grad, "_has_foreach_support", lambda tensors, device: True)
    with grouped, Launches() as mode:
        step()
    return mode.found


def kind_of(name: str) -> str:
    return next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "others")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[], help=", ".join(WORKLOADS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--names", action="store_true", help="also each operation by its name")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, meta tensors, 3x32x32 images, batch {args.batch}\n")
    print(f"| operations | all | {' | '.join((*KINDS, 'others'))} |")
    print("|---" * (len(KINDS) + 3) + "|")
    for name in args.workloads or WORKLOADS:
        found = launches(WORKLOADS[name], args.batch)
        kinds: Counter[str] = Counter()
        for operation, count in found.items():
            kinds[kind_of(operation)] += count
        counts = [found.total(), *(kinds[kind] for kind in (*KINDS, "others"))]
        print(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |", flush=True)
        if args.names:
            print(", ".join(f"{key} {count:,}" for key, count in found.most_common()))


if __name__ == "__main__":
    main()
