"""A planted answer that every gradient strategy finds by its shipped defaults.

A node has two inputs: the images, which are stripes, upright or lying, of any phase, and other
images. The means of the stripes are equal, so that the linear stem and head need the convolution on
the images. `alpha_lr_scale` is set, as the search has 320 steps instead of thousands.
"""

import pytest
import torch
from stripes import SIDE, OtherImages, stripes
from test_every_config import composed, make
from torch import Tensor

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.darts import CANDIDATES
from search_spaces.space import Space
from supernets.network import supernet

NAMES = ["none", "skip_connect", "sep_conv_3x3"]
EPOCHS, STEPS = 40, 8
SCALE = 30.0
STRATEGIES = [
    "annealed", "beta_darts", "dartopti", "darts", "darts_pt", "darts_second_order", "ddarts",
    "drnas", "drnas_progressive", "fairdarts", "gdas", "pcdarts", "rarts", "rome", "sdarts_adv",
    "sdarts_rs", "sddarts", "sharpdarts", "snas",
]  # fmt: skip


def planted() -> Space:
    cell = Cell(2, 1, complete_edges(2, 1, NAMES), keep=1, output="last")
    return CellSpace(
        name="planted", family=planted, settings={}, cells={"cell": cell},
        layers=(Layer("cell", "cell", 8, False),),
        operations={name: CANDIDATES[name] for name in NAMES}, input_shape=(1, SIDE, SIDE),
        classes=2, stem="plain", stem_channels=8, preprocess=False, head="pool_linear",
    )  # fmt: skip


class Loaders:
    """What a strategy measures on at the end of an epoch."""

    @staticmethod
    def held_out() -> list[tuple[Tensor, Tensor]]:
        source = torch.Generator().manual_seed(99)
        return [stripes(source) for _ in range(4)]


def found_by(name: str, seed: int) -> dict[str, tuple[str, ...]]:
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    config = composed(f"strategy={name}", f"strategy.alpha_lr_scale={SCALE}").strategy
    strategy = make(config, space=planted())
    net = supernet(strategy.space, strategy.mixed_op).train()
    net.stem_second = OtherImages()
    strategy.setup(net, torch.device("cpu"))
    strategy.for_batches(32)
    for epoch in range(EPOCHS):
        strategy.epoch_start(epoch, EPOCHS)
        for i in range(STEPS):
            strategy.step(
                net,
                stripes(source),
                stripes(source) if strategy.update.two_level else None,
                progress=(epoch + i / STEPS) / EPOCHS,
                move_alphas=strategy.alphas_move(epoch, EPOCHS),
            )
        strategy.epoch_end(net, Loaders, (epoch + 1) / EPOCHS)
    return dict(strategy.architecture().choices["cell"])


ANSWER = {"0-2": ("sep_conv_3x3",)}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_planted_answer_is_found(name: str):
    assert found_by(name, 0) == ANSWER


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_planted_answer_is_found_by_eight_of_ten_seeds(name: str):
    found = [found_by(name, seed) for seed in range(10)]
    assert found.count(ANSWER) >= 8, found
