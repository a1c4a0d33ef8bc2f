"""What safety costs: seconds of a checkpoint and of a step's look at its numbers, beside a step,
and of the look at memory before a run.

`python benchmarks/checkpoint_cost.py [n]` prints medians, minima and maxima of n.
Workload: the DARTS supernet of the paper (8 cells, 4 nodes, 16 channels), first order, random
3x32x32 images in batches of 16, one thread; checkpoints go to the temporary folder.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archsmith.search.loop import Search, measured_numbers  # noqa: E402
from archsmith.search.settings import SearchSettings  # noqa: E402
from archsmith.train.checkpoint import SHARE, Checkpoints  # noqa: E402
from archsmith.train.epochs import probe  # noqa: E402
from archsmith.train.finite import Watch  # noqa: E402
from archsmith.train.record import Record  # noqa: E402
from supernets.network import supernet  # noqa: E402

EVERY = 60.0  # conf/config.yaml: checkpoint.every_seconds


def timed(act: Callable[[], object], n: int) -> list[float]:
    act()
    found = []
    for _ in range(n):
        start = time.perf_counter()
        act()
        found.append(time.perf_counter() - start)
    return found


def searched(folder: Path) -> tuple[Search, Callable[[], dict[str, torch.Tensor]]]:
    """The search of the workload, and a step of it."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        sizes = ["experiment=paper", "data=synthetic", "data.image_size=32", "data.classes=10"]
        config = compose("config", overrides=[*sizes, "strategy=darts"])
    data = instantiate(config.data, _convert_="all")
    space = instantiate(config.space, _convert_="all")(input_shape=(3, 32, 32), classes=10)
    strategy = instantiate(config.strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, torch.device("cpu"))
    roles = data.loaders(16, one_level=False, seed=0)
    batch = next(iter(roles.train))

    def step() -> dict[str, torch.Tensor]:
        return strategy.step(net, batch, batch, progress=0.5, move_alphas=True)

    settings = SearchSettings(epochs=50, batch_size=16)
    return Search(net, strategy, roles, settings, record=Record(folder), meta={}), step


def main(n: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        search, step = searched(folder)
        metrics = step()
        watch = Watch("search", "", folder, {})
        checkpoints = Checkpoints(folder, "search", {})
        rows = {
            "a step": timed(step, n),
            "its numbers": timed(
                lambda: watch.see(1, 1, measured_numbers(metrics, search.strategy)), 20 * n
            ),
            "a check before saving": timed(lambda: watch.check(1, search.net.state_dict()), n),
            "memory before a run": timed(lambda: probe(search), n),
            "a checkpoint": timed(lambda: checkpoints.save(search.state_dict()), n),
        }
        size = max(path.stat().st_size for path in folder.glob("*.pt"))
    show(rows, size, n)


def show(rows: Mapping[str, Sequence[float]], size: int, n: int) -> None:
    """Prints the seconds of each row, and the share of a run that safety takes.

    size: bytes of a checkpoint.
    """
    print(
        f"torch {torch.__version__}, CPU, 1 thread, n = {n}; a checkpoint has {size / 1e6:.1f} MB"
    )
    for name, found in rows.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{name:<22} {1e3 * middle:9.2f} ms ({1e3 * low:.2f} to {1e3 * high:.2f})")
    saving = ("a checkpoint", "a check before saving")
    once = sum(statistics.median(rows[name]) for name in saving)
    step_seconds = statistics.median(rows["a step"])
    numbers = statistics.median(rows["its numbers"])
    print(
        f"one checkpoint in {EVERY:.0f} s: {once / EVERY:.3%} of the time, never over {SHARE:.0%}"
    )
    print(f"numbers of every step: {numbers / step_seconds:.3%} of the time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
