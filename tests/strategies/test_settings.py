"""Which setting an error is about."""

import pytest
import torch
from hydra.utils import instantiate
from test_every_config import composed

from archsmith.cli.objects import build
from archsmith.errors import ConfigError
from search_spaces.darts import darts
from search_spaces.settings import located, setting
from strategies.strategy import Strategy
from supernets.network import supernet

SPACE = darts(layers=3, nodes=1, channels=4, input_shape=(3, 8, 8), classes=3,
              candidates=["skip_connect", "sep_conv_3x3"])  # fmt: skip


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("weight: expected 1", "losses.mine.weight: expected 1"),
        ("r, mu: expected 1", "losses.mine.r, mu: expected 1"),
        ("needs another relaxation, found: x", "losses.mine: needs another relaxation, found: x"),
        ("losses.mine.weight: expected 1", "losses.mine.weight: expected 1"),
        ("losses.mine: wrong", "losses.mine: wrong"),
    ],
)
def test_the_path_of_a_setting_comes_before_its_parameter(message: str, expected: str):
    assert located("losses.mine", message) == expected
    with pytest.raises(ValueError, match=f"^{expected}$"), setting("losses.mine"):
        raise ValueError(message)


WRONG = [
    ("strategy.losses.gate_cost.start", "-1", ": expected a number above 0, found -1"),
    (
        "strategy.losses.ema_teacher.decay",
        "2",
        ": expected a number of at least 0 and below 1, found 2",
    ),
    ("strategy.losses.label_smoothing.weight", "-1", ": expected a number of at least 0, found -1"),
    ("strategy.losses.self_distillation.lag", "0", ": expected a whole number of at least 1, fou"),
    ("strategy.losses.dirichlet_anchor.distance", "far", ": expected one of l2, kl, found 'far'"),
    ("strategy.relaxation.start", "-1", ": expected a number above 0, found -1"),
    ("strategy.update.radius", "0", ": expected a number above 0, found 0"),
    ("strategy.pruning.gradual", "0", ": expected a number above 0 and at most 1, found 0"),
    ("strategy.stopping.floor", "2", ": expected a number of at least 0 and below 1, found 2"),
]
CHOICES = {
    "update": "strategy/update=second_order",
    "pruning": "strategy/pruning=share_threshold",
    "stopping": "strategy/stopping=macs_floor",
}


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_who_builds_an_ingredient_says_where_it_stands(key: str, value: str, said: str):
    _, kind, name = key.split(".")[:3]
    chosen = f"+strategy/losses=[{name}]" if kind == "losses" else CHOICES.get(kind)
    config = composed("strategy=darts", *([chosen] if chosen else []), f"{key}={value}")
    with pytest.raises(ConfigError) as error:
        build(config.strategy, "strategy")
    assert str(error.value).startswith(key + said)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("+strategy/losses=[dirichlet_anchor]", "losses.dirichlet_anchor: needs strategy/relax"),
        ("strategy/stopping=macs_floor", "stopping.floor: 0.0 of the candidates'"),
    ],
)
def test_who_sets_an_ingredient_up_says_where_it_stands(choice: str, said: str):
    more = ["strategy.stopping.floor=0.0"] if "stopping" in choice else []
    config = composed("strategy=darts", choice, *more).strategy
    strategy: Strategy = instantiate(config, _convert_="all")(space=SPACE)
    with pytest.raises(ValueError, match=rf"^{said}"):
        strategy.setup(supernet(SPACE, strategy.mixed_op), torch.device("cpu"))


def test_what_pruning_left_too_little_of_is_told_by_its_setting():
    strategy: Strategy = instantiate(composed("strategy=darts").strategy, _convert_="all")(
        space=SPACE
    )
    strategy.prune({name: torch.zeros_like(table) for name, table in strategy.alive.items()})
    with pytest.raises(ValueError, match=r"^pruning: no candidate into node 2 is left"):
        strategy.architecture()
