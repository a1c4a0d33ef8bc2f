"""Every strategy on transformers: it searches, or is refused; resumed runs are exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
from faults.toys import assert_same, left_in, scramble
from helpers import search
from test_every_config import SEARCHERS, STRATEGIES, composed, make

from archsmith.data.text import text
from archsmith.errors import Interrupted
from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.memory_probe import images_for
from archsmith.train.record import Record
from search_spaces.transformers import gpt, vit
from strategies.strategy import Strategy
from supernets.costs import macs
from supernets.network import final_network, supernet

CPU = torch.device("cpu")
SIZES: dict[str, Any] = dict(
    depths=[1, 2], widths=[8, 12], heads=[1, 2], head_dim=4, ratios=[1.0, 2.0], mlp="gelu",
    bias=False,
)  # fmt: skip
TEXT = gpt(**SIZES, tied=True, input_shape=(1, 1, 6), classes=5)
IMAGES = vit(**SIZES, patch=4, pool="mean", input_shape=(3, 8, 8), classes=3)
SLICES = "cannot mix; set strategy/mixed_op=full"
REFUSED = {
    "pcdarts": SLICES,
    "drnas_progressive": SLICES,
    "singlepath": SLICES,
    "goldnas": "keeps several options of a row",
    "rdarts_dp": "most: expected 0, as space gpt has no edges to drop",
    "pareto_gates": "costs of options do not add up in space gpt",
}
SEARCHING = [name for name in STRATEGIES if name not in SEARCHERS and name not in REFUSED]
QUICK = ("darts", "gdas", "drnas", "annealed", "tas")


def started(name: str, space: Any, *overrides: str) -> tuple[Strategy, Any]:
    still = [f"strategy={name}", "strategy.warmup=0", *overrides]
    strategy = make(composed(*still).strategy, space=space)
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, CPU)
    return strategy, net


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in SEARCHING],
)
@pytest.mark.parametrize("space", [TEXT, IMAGES], ids=["gpt", "vit"])
def test_a_strategy_moves_all_choices(name: str, space: Any):
    strategy, net = started(name, space)
    before = {name: alphas.detach().clone() for name, alphas in strategy.alphas.items()}
    val = images_for(net, 4) if strategy.update.two_level else None
    strategy.epoch_start(0, 2)
    for _ in range(3):
        strategy.step(net, images_for(net, 4), val, progress=0.0, move_alphas=True)
    assert all((alphas != before[name]).any() for name, alphas in strategy.alphas.items())
    found = final_network(space, strategy.architecture())
    x, y = images_for(net, 2)
    assert found(x).argmax(1).shape == y.shape


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_what_cannot_run_is_one_line(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        started(name, TEXT)


@pytest.mark.parametrize("space", [TEXT, IMAGES], ids=["gpt", "vit"])
def test_the_cost_goes_to_its_band(space: Any):
    """Without any other loss, by the term of TAS: the most probable network costs what it shall."""
    strategy, _ = started(
        "darts", space, "strategy/losses=macs_band", "strategy.losses.macs_band.target=0.4",
        "strategy.losses.macs_band.tolerance=0.2",
    )  # fmt: skip
    term: Any = strategy.losses["macs_band"]
    optimizer = torch.optim.Adam(strategy.alphas.values(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = term(None, None, None, None)
        if loss == 0:
            break
        loss.backward()
        optimizer.step()
    assert 0.3 < macs(final_network(space, strategy.architecture())) / term.goal * 0.4 < 0.5


class Toy:
    """A search on text; every call of `run` is another process's."""

    def __init__(self, name: str, root: Path):
        (root / "text.txt").write_text("the cat sat on the mat and sang; " * 20)
        self.name = name
        self.data = text(
            str(root / "text.txt"), context=6, test_share=0.1, limit=24, split=0.5, select=0.25,
            augment={"crop": 0, "flip": False, "cutout": 0}, seed=0,
        )  # fmt: skip
        self.space = TEXT.resize(classes=len(self.data.classes))

    def run(self, folder: Path, **more: Any) -> Any:
        scramble(0)
        self.strategy, self.net = started(
            self.name, self.space, "strategy/weight_optimizer=adamw", "strategy.alpha_lr_scale=10"
        )
        try:
            return search(
                self.net, self.strategy,
                self.data.loaders(4, one_level=not self.strategy.update.two_level, seed=0),
                SearchSettings(epochs=2, batch_size=4),
                record=Record(folder),
                checkpoints=Checkpoints(folder / "checkpoints", "search", {}, every_seconds=60.0),
                **more,
            )  # fmt: skip
        finally:
            scramble(99)

    def tensors(self) -> dict[str, torch.Tensor]:
        return self.net.state_dict() | self.strategy.state_dict()["arch"]


@pytest.mark.parametrize("name", ["drnas", "gdas"])
def test_a_search_on_text_stopped_after_every_step_is_the_same(name: str, tmp_path: Path):
    whole, parts = Toy(name, tmp_path), Toy(name, tmp_path)
    expected, stops = whole.run(tmp_path / "whole"), 0
    while stops < 20:
        try:
            found = parts.run(tmp_path / "parts", stop=lambda: True)
            break
        except Interrupted:
            stops += 1
    assert 4 <= stops < 20
    assert (found.architecture, found.metrics) == (expected.architecture, expected.metrics)
    assert_same(parts.tensors(), whole.tensors())
    assert left_in(tmp_path / "parts") == left_in(tmp_path / "whole")
