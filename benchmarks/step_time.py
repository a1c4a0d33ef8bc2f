"""Seconds of one search step (alpha step, then weight step) per strategy, in one process,
interleaved.

`python benchmarks/step_time.py [n]` prints median, minimum and maximum of n steps, as ratios to
`darts` too.
Workload: DARTS space, 5 cells, 3 nodes, 8 channels, batches of 16 random 3x32x32 images, one
thread.
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search_spaces.darts import CANDIDATES, darts  # noqa: E402
from supernets.network import supernet  # noqa: E402

STRATEGIES = ["darts", "darts_second_order", "pcdarts", "annealed", "gdas", "drnas", "snas"]


def prepared(name: str, batch: tuple[torch.Tensor, torch.Tensor]):
    """A function that takes one step of a strategy."""
    torch.manual_seed(0)
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose("config", overrides=[f"strategy={name}"])
    space = darts(
        layers=5,
        nodes=3,
        channels=8,
        candidates=list(CANDIDATES),
        input_shape=(3, 32, 32),
        classes=10,
    )
    strategy = instantiate(config.strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, torch.device("cpu"))
    return lambda: strategy.step(net, batch, batch, progress=0.5, move_alphas=True)


def main(n: int) -> None:
    torch.set_num_threads(1)
    batch = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    steps = {name: prepared(name, batch) for name in STRATEGIES}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(n + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - start)
    print(f"torch {torch.__version__}, CPU, 1 thread, n = {n}")
    reference = statistics.median(seconds["darts"])
    for name, found in seconds.items():
        median = statistics.median(found)
        print(
            f"{name:<20} {median:.3f} s ({min(found):.3f} to {max(found):.3f}), "
            f"{median / reference:.2f} times darts"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
