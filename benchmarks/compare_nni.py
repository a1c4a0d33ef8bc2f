"""The step of W1 and W3 in `nni.nas`, a public peer, beside ours, interleaved in one process.

`python benchmarks/compare_nni.py [--threads 2] [--batch 16] [--n 3] [W1 W3]` needs the `nas` extra.
NNI's own DARTS mixes the operations of its hub's space; the step is what its training step does
(losses of both batches, all gradients in each, Adam and clipped SGD), without its trainer around
it. Its DARTS space has the operations and cells of W1; it scales the first stem likewise.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from step_time import seconds
from torch import nn
from workloads import WORKLOADS, prepared

CLIP = 5.0


def space(workload: str) -> nn.Module:
    """NNI's hub space at the sizes of the workload."""
    from nni.nas.hub.pytorch import DARTS, NasBench201

    if workload == "W1":
        return DARTS(width=16, num_cells=8, dataset="cifar")
    return NasBench201(num_labels=10, stem_out_channels=16, num_modules_per_stack=5)


def peer(workload: str, batch: int) -> Callable[[], Any]:
    """A function that takes one step of NNI's DARTS."""
    import nni.nas.strategy as strategies

    torch.manual_seed(0)
    net = strategies.DARTS().mutate_model(space(workload)).train()
    found = (m.arch_parameters() for m in net.modules() if hasattr(m, "arch_parameters"))
    alphas = list({id(p): p for group in found for p in group}.values())
    of_alphas = {id(p) for p in alphas}
    weights = [p for p in net.parameters() if id(p) not in of_alphas]
    alpha_optimizer = torch.optim.Adam(alphas, 3e-4, (0.5, 0.999), weight_decay=1e-3)
    weight_optimizer = torch.optim.SGD(weights, 0.025, 0.9, weight_decay=3e-4)
    (x, y), (x_val, y_val) = (
        (torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))) for _ in range(2)
    )

    def step() -> None:
        alpha_optimizer.zero_grad()
        F.cross_entropy(net(x_val), y_val).backward()
        alpha_optimizer.step()
        weight_optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        nn.utils.clip_grad_norm_(weights, CLIP)
        weight_optimizer.step()

    print(
        f"{workload}: nni.nas {sum(p.numel() for p in weights):,} weights, "
        f"{sum(p.numel() for p in alphas)} alphas"
    )
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[], help="W1, W3")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--n", type=int, default=3)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="nni")
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, CPU, {args.threads} threads, float32, n = {args.n}")
    for workload in args.workloads or ["W1", "W3"]:
        steps = {"nni.nas": peer(workload, args.batch)}
        for form in ("public", "fused", "native"):
            steps[form] = prepared(WORKLOADS[workload][1], form, args.batch)
        found = seconds(steps, args.n)
        base = statistics.median(found["nni.nas"])
        print("\n| form | s a step, median (min to max) | times faster |\n|---|---|---|")
        for form, times in found.items():
            median = statistics.median(times)
            print(f"| {form} | {median:.3f} ({min(times):.3f} to {max(times):.3f}) "
                  f"| {base / median:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
