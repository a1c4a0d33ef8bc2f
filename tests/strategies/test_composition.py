"""Every ingredient with every other, two steps each; a pair that cannot work is refused by name."""

import itertools
import random
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from test_every_config import CONF, composed, make

from search_spaces.space import Space
from strategies.gradients import Batch
from strategies.strategy import Strategy
from supernets.network import supernet

KINDS = (
    "relaxation", "mixed_op", "update", "topology", "losses", "pruning", "stopping",
    "discretisation",
)  # fmt: skip
REFUSED = (
    r"^losses\.dirichlet_anchor: needs strategy/relaxation=dirichlet, found "
    r"|^pruning\.start: selects by removing one option after another, and the (relaxation|topology)"
    r"|^losses\.\w+: is added on val images, of which an update of one level sees none"
    r"|^a super-kernel holds mbconv_3x3_e3, .* set space=mbconv"
    r"|^relaxation: compares norms of a super-kernel; set strategy/mixed_op=super_kernel"
    r"|^losses\.preferred: needs strategy/preference=devices"
    r"|^of these candidates no two differ in their kernels alone"
)
ON_VAL = ("beta_decay", "macs_band", "zero_one", "zero_one_of_cells")
Combination = dict[str, str]


def names(kind: str) -> list[str]:
    """The choices of a kind; of losses none, each, and all that fit any relaxation together."""
    found = sorted(path.stem for path in (CONF / "strategy" / kind).glob("*.yaml"))
    return ["", *found, "gate_cost,self_distillation"] if kind == "losses" else found


def combinations(**fixed: str) -> Iterator[Combination]:
    chosen = [[fixed[kind]] if kind in fixed else names(kind) for kind in KINDS]
    for combination in itertools.product(*chosen):
        yield dict(zip(KINDS, combination, strict=True))


@cache
def plain() -> dict[str, Any]:
    """The settings of `darts`."""
    found = OmegaConf.to_container(composed().strategy)
    assert isinstance(found, dict)
    return found


@cache
def part(kind: str, name: str) -> Any:
    choice = f"[{name}]" if kind == "losses" else name
    found = composed(f"strategy/{kind}={choice}").strategy[kind]
    return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found


@cache
def space(name: str) -> Space:
    sizes = {
        "darts": ["space.layers=3", "space.nodes=1"],
        "goldnas": ["space.layers=3", "space.nodes=1"],
        "nasbench201": ["space.layers=5", "space.nodes=2"],
    }[name]
    config = composed(f"space={name}", "space.channels=4", *sizes)
    if name == "darts":
        config.space.candidates = ["none", "skip_connect", "sep_conv_3x3"]
    return make(config.space, input_shape=(3, 4, 4), classes=3)


def two_steps(combination: Combination, where: Space) -> Strategy:
    """A strategy of these ingredients after two steps and the end of an epoch."""
    torch.manual_seed(0)
    config = plain() | {kind: part(kind, name) for kind, name in combination.items()}
    strategy: Strategy = make(OmegaConf.create(config), space=where)
    net = supernet(where, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    strategy.epoch_start(0, 2)

    def batch() -> Batch:
        return torch.randn(4, 3, 4, 4), torch.randint(3, (4,))

    before = [alpha.detach().clone() for alpha in strategy.alphas.values()]
    for i in range(2):
        val = batch() if strategy.update.two_level else None
        metrics = strategy.step(net, batch(), val, progress=0.5 + i / 4, move_alphas=True)
        assert all(bool(torch.isfinite(value)) for value in metrics.values()), combination
    moved = zip(before, strategy.alphas.values(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved), combination
    loaders = SimpleNamespace(held_out=lambda: [batch()])
    strategy.epoch_end(net, loaders, 1.0)
    strategy.architecture().check(where)
    return strategy


def refused(combination: Combination, where: Space) -> bool:
    anchor = "dirichlet_anchor" in combination["losses"]
    parts_run = {"gumbel", "subset", "gumbel_top", "gumbel_sets"}
    drawn = combination["pruning"] == "perturbation" and bool(
        parts_run & {combination["relaxation"], combination["topology"]}
    )
    unseen = combination["losses"] in ON_VAL and combination["update"] == "one_level"
    parts = combination["mixed_op"] == "super_kernel" or combination["relaxation"] == "threshold"
    alone = combination["mixed_op"] == "entangled" and where.name != "nasbench201"
    if alone or combination["losses"] == "preferred":
        return True
    return parts or drawn or unseen or (anchor and combination["relaxation"] != "dirichlet")


def check(combination: Combination, where: Space) -> None:
    if refused(combination, where):
        with pytest.raises(ValueError, match=REFUSED):
            two_steps(combination, where)
    else:
        two_steps(combination, where)


def sample(number: int) -> list[Combination]:
    """Combinations of ingredients drawn with a fixed seed."""
    draw = random.Random(0)
    return [{kind: draw.choice(names(kind)) for kind in KINDS} for _ in range(number)]


@pytest.mark.slow
def test_a_sample_of_all_combinations():
    for combination in sample(100):
        check(combination, space("darts"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("update", names("update"))
@pytest.mark.parametrize("mixed_op", names("mixed_op"))
@pytest.mark.parametrize("relaxation", names("relaxation"))
def test_all_combinations(relaxation: str, mixed_op: str, update: str):
    for combination in combinations(relaxation=relaxation, mixed_op=mixed_op, update=update):
        check(combination, space("darts"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["goldnas", "nasbench201"])
def test_a_sample_on_the_other_spaces(name: str):
    for combination in sample(40):
        check(combination, space(name))
