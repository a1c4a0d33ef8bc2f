"""A planted answer for the strategies of RobustDARTS: the sheet robustdarts.md, section 10, test 4.

Its test 5, the regret over 81 architectures that are all trained, is a study and not a test.
"""

from pathlib import Path

import pytest
import torch
from helpers import search
from test_every_config import CPU, composed, make

from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Record
from search_spaces.darts import darts
from search_spaces.space import Space
from supernets.network import supernet

STRATEGIES = ["rdarts_es", "rdarts_l2", "rdarts_adaptive", "rdarts_dp"]


def planted() -> Space:
    return darts(
        layers=3, nodes=1, channels=4, candidates=["noise", "skip_connect"],
        input_shape=(3, 8, 8), classes=2,
    )  # fmt: skip


def found(name: str, seed: int, folder: Path) -> set[str]:
    """The operations of the architecture that a search with the default settings finds."""
    torch.manual_seed(seed)
    config = composed(
        f"strategy={name}", "strategy.alpha_lr_scale=30",  # as in the demo
        "data=synthetic", "data.size=128", "data.classes=2", "data.image_size=8",
    )  # fmt: skip
    strategy = make(config.strategy, space=planted())
    net = supernet(strategy.space, strategy.mixed_op)
    strategy.setup(net, CPU)
    result = search(
        net, strategy, make(config.data).loaders(16, one_level=False, seed=seed),
        SearchSettings(epochs=8, batch_size=16), record=Record(folder),
        checkpoints=Checkpoints(folder / "checkpoints", "search", {}),
    )  # fmt: skip
    choices = result.architecture.choices.values()
    return {op for rows in choices for ops in rows.values() for op in ops}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_robustdarts_4_identity_wins_against_noise(name: str, tmp_path: Path):
    assert found(name, 0, tmp_path) == {"skip_connect"}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", STRATEGIES)
def test_robustdarts_4_identity_wins_for_eight_of_ten_seeds(name: str, tmp_path: Path):
    won = [found(name, seed, tmp_path / str(seed)) == {"skip_connect"} for seed in range(10)]
    assert sum(won) >= 8
