"""Small searches that can be interrupted, and everything they leave, to be compared bit for bit."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import search
from test_every_config import OWN, composed, make

from archsmith.search.loop import Search
from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Record
from search_spaces.space import Space
from strategies.strategy import Strategy
from supernets.network import Network, supernet

CPU = torch.device("cpu")
STRATEGIES = [
    "darts", "pcdarts", "goldnas", "sddarts", "gdas", "drnas", "darts_second_order", "annealed",
    "rdarts_es", "rdarts_dp", "darts_pt", "drnas_progressive", "singlepath",
    "pareto_gates",
]  # fmt: skip
TOY = [
    "strategy.alpha_optimizer.weight_decay=0", "strategy.alpha_lr_scale=10",
    "data=synthetic", "data.size=32",
    "data.image_size=8", "data.classes=3", "data.augment.crop=1", "data.augment.flip=true",
]  # fmt: skip
MORE = {  # so that 2 epochs of 2 steps see what a method has of its own
    "pcdarts": ["strategy.warmup=0.5"],
    "annealed": ["strategy.warmup=0"],
    "pareto_gates": ["strategy.warmup=0", "strategy.preference.grid=2"],
    "sddarts": [
        "strategy.losses.self_distillation.ramp=[0.0,0.2]",
        "strategy.losses.self_distillation.lag=1",
        "strategy.losses.self_distillation.teachers=1",
        "strategy.losses.self_distillation.unit=step",
    ],
    "singlepath": ["strategy.warmup=0.5"],
    "goldnas": ["strategy.warmup=0", "strategy.pruning.most=0.5", "strategy.pruning.maximum=0.99"],
}


def scramble(seed: int) -> None:
    """Another process would have other random streams."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


class ToySearch:
    """A search of 2 epochs with 2 steps each; every call of `run` is another process's."""

    def __init__(self, space: Space, name: str, *overrides: str):
        small = ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"]
        sizes = {} if name in OWN else dict(nodes=1, candidates=small)
        self.space = OWN.get(name, space).resize(classes=3, input_shape=(3, 8, 8), **sizes)
        self.config = composed(f"strategy={name}", *TOY, *MORE.get(name, []), *overrides)
        self.net: Network
        self.strategy: Strategy

    def run(
        self,
        folder: Path,
        *,
        epochs: int = 2,
        every_seconds: float = 60.0,
        identity: dict[str, Any] | None = None,
        force: bool = False,
        micro_batches: int = 1,
        device: torch.device = CPU,
        **more: Any,
    ) -> Any:
        self.start(device)
        data = make(self.config.data).to(device)
        one_level = not self.strategy.update.two_level
        try:
            return search(
                self.net,
                self.strategy,
                data.loaders(8 if not one_level else 15, one_level=one_level, seed=0),
                SearchSettings(
                    epochs=epochs, batch_size=8, micro_batches=micro_batches, signal=True
                ),
                record=Record(folder),
                checkpoints=Checkpoints(
                    folder / "checkpoints",
                    "search",
                    identity or {},
                    every_seconds=every_seconds,
                    force=force,
                ),
                meta={},
                **more,
            )
        finally:
            scramble(99)

    def start(self, device: torch.device = CPU) -> None:
        """A new supernet and strategy, as the pipeline makes them."""
        scramble(0)
        self.strategy = make(self.config.strategy, space=self.space)
        self.net = supernet(self.space, self.strategy.mixed_op).to(device)
        self.strategy.setup(self.net, device)

    def state(self) -> Search:
        """That of a new search, without a runner."""
        self.start()
        one_level = not self.strategy.update.two_level
        roles = make(self.config.data).loaders(8, one_level=one_level, seed=0)
        settings = SearchSettings(epochs=2, batch_size=8)
        record: Any = None
        return Search(self.net, self.strategy, roles, settings, record=record, meta={})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights, buffers, alphas, both optimisers' moments, by name."""
        found = dict(self.net.state_dict())
        state = self.strategy.state_dict()
        found |= state["arch"]
        for optimizer in ("weight_optimizer", "alpha_optimizer"):
            for name, values in state[optimizer]["state"].items():
                found |= {f"{optimizer}.{name}.{k}": torch.as_tensor(v) for k, v in values.items()}
        return found


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [name for name, t in expected.items() if not torch.equal(found[name], t)]
    assert different == []


def left_in(folder: Path) -> dict[str, Any]:
    """Metrics without times, and the bytes of every architecture file."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = sorted((folder / "architectures").glob("*.json"))
    metrics = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    return {"metrics": metrics} | {file.name: file.read_bytes() for file in files}


def at(asked: int) -> Callable[[], bool]:
    """A `stop` that says so when it is asked for that time."""
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count == asked

    return stop


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def image_tree(root: Path, classes: int = 2, images: int = 6, size: int = 8) -> None:
    """`root/train` and `root/test` with noise in PNG."""
    from PIL import Image

    source = np.random.default_rng(0)
    for part in ("train", "test"):
        for c in range(classes):
            folder = root / part / f"class_{c}"
            folder.mkdir(parents=True)
            for i in range(images):
                pixels = source.integers(256, size=(size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
