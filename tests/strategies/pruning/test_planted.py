"""A planted answer: sheet goldnas.md, section 9, test 6.

Images are stripes, upright or lying, of any phase: their means are equal, so that the linear stem
and head need a separable convolution between them. The cell's second input shows other images.
"""

import pytest
import torch
from stripes import SIDE, OtherImages, stripes
from test_every_config import composed, make

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.goldnas import CANDIDATES
from search_spaces.space import Space
from supernets.network import supernet

NAMES = ["skip_connect", "sep_conv_3x3"]
EPOCHS, STEPS = 40, 8


def planted() -> Space:
    cell = Cell(2, 2, complete_edges(2, 2, NAMES), keep=2, output="last")
    return CellSpace(
        name="planted", family=planted, settings={}, cells={"cell": cell},
        layers=(Layer("cell", "cell", 8, False),),
        operations={name: CANDIDATES[name] for name in NAMES}, input_shape=(1, SIDE, SIDE),
        classes=2, stem="plain", stem_channels=8, preprocess=False, head="pool_linear",
    )  # fmt: skip


def cuts(seed: int, *, shuffled: bool) -> tuple[list[tuple[str, str]], dict[str, tuple[str, ...]]]:
    """The candidates in the order in which they went, and those that are left; by the defaults."""
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    strategy = make(
        composed("strategy=goldnas", "strategy.alpha_lr_scale=30").strategy, space=planted()
    )
    net = supernet(strategy.space, strategy.mixed_op)
    net.stem_second = OtherImages()
    strategy.setup(net, torch.device("cpu"))
    edges, gone = strategy.space.cells["cell"].edges, []
    for epoch in range(EPOCHS):
        before = strategy.alive["cell"]
        strategy.epoch_start(epoch, EPOCHS)
        for i in range(STEPS):
            x, y = stripes(source)
            y = y[torch.randperm(len(y), generator=source)] if shuffled else y
            progress = (epoch + i / STEPS) / EPOCHS
            moves = strategy.alphas_move(epoch, EPOCHS)
            strategy.step(net, (x, y), None, progress=progress, move_alphas=moves)
        done = strategy.epoch_end(net, None, (epoch + 1) / EPOCHS)
        cut = (before & ~strategy.alive["cell"]).nonzero().tolist()
        gone += [(edges[e].name, NAMES[o]) for e, o in cut]
        if done:
            break
    return gone, dict(strategy.architecture().choices["cell"])


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_goldnas_6_distractors_go_first_and_the_planted_path_stays(seed: int):
    gone, left = cuts(seed, shuffled=False)
    distractors = [gone.index((edge, name)) for edge in ("1-2", "1-3") for name in NAMES]
    signal = [i for i, (edge, name) in enumerate(gone) if edge[0] == "0" and "sep" in name]
    assert max(distractors) < min(signal, default=len(gone))
    assert "sep_conv_3x3" in left["0-2"]  # with seed 7 a skip is left beside it
    assert left.keys() <= {"0-2", "0-3", "2-3"}


@pytest.mark.slow
def test_goldnas_6_with_shuffled_labels_the_path_is_not_told_from_distractors():
    _, left = cuts(0, shuffled=True)
    assert set(left) & {"1-2", "1-3"}, "a node that reads other images"
