"""Contracts that every configuration file keeps, present and future."""

import copy
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import search
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from archsmith.cli import naming
from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Record
from search_spaces.architecture import Architecture
from search_spaces.conv_macro import conv_macro
from search_spaces.mbconv import mbconv
from search_spaces.space import Space
from strategies.searchers.searcher import Searcher
from strategies.strategy import Strategy
from supernets.network import Network, final_network, supernet

CONF = Path(__file__).resolve().parents[1] / "conf"
PARTS = ("3x3_e3", "3x3_e6", "5x5_e3", "5x5_e6")
STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
TARGETS = sorted(p for p in CONF.rglob("*.yaml") if "\n_target_:" in "\n" + p.read_text())
CPU = torch.device("cpu")
FOLLOWS = ("nni", "sizes", "sharing", "final", "beside")  # are no choices of a user
# Strategies that need a space of their own kind, small.
OWN: dict[str, Space] = {
    "singlepath": mbconv(
        layers=3, channels=4, widths=[1, 1.5], strides=[1, 2], ends=[1, 2],
        candidates=["skip_connect", *(f"mbconv_{part}" for part in PARTS)],
        input_shape=(3, 8, 8), classes=10,
    )
}  # fmt: skip


def composed(*overrides: str) -> DictConfig:
    """The demo's configuration; alphas move at the rates of the strategies' own files."""
    return copy.deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    naming.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=["strategy.alpha_lr_scale=1", *overrides])


@pytest.mark.parametrize(
    "space",
    ["tas", "mbconv", "mbconv_224", "chain", "modular", "goldnas", "vit", "gpt", "matformer"],
)
def test_a_space_that_decides_on_its_size_keeps_it_in_every_recipe(space: str):
    assert composed("retrain=cifar", f"space={space}").retrain.layers is None
    assert composed("retrain.layers=7", f"space={space}").retrain.layers == 7


def make(node: DictConfig, **live: Any) -> Any:
    made = instantiate(node, _convert_="all")
    return made(**live) if node.get("_partial_") else made


SEARCHERS = ["evolution", "mcts", "mcts_bisection", "nsga2", "pareto", "random", "smbo"]


def still(name: str) -> list[str]:
    """A strategy whose alphas move by gradient alone, from the first epoch."""
    if name in SEARCHERS:
        return [f"strategy={name}"]
    return [f"strategy={name}", "strategy.warmup=0", "strategy.alpha_optimizer.weight_decay=0"]


LONG = (
    "goldnas",
    "darts_second_order",
    "sddarts",
    "drnas",
    "snas",
    "annealed",
    "rdarts_es",
    "rdarts_l2",
    "rdarts_adaptive",
    "rdarts_dp",
    "ddarts",
    "dartopti",
    "tas",
)
SEARCHED = [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n in STRATEGIES]


def steps_on_a_copy(net: Network, strategy: Strategy) -> None:
    """As a budget of seconds and the probe of memory do, before the first epoch."""
    net, strategy = copy.deepcopy((net, strategy))
    batch = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    val = batch if strategy.update.two_level else None
    for move_alphas in (True, False):
        strategy.step(net, batch, val, progress=1.0, move_alphas=move_alphas)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("toy", ["toy_darts", "toy_nasbench201"])
def test_strategy_searches_and_yields_a_network(name: str, toy: str, request, tmp_path: Path):
    space: Space = request.getfixturevalue(toy)
    config = composed(
        *still(name), "data=synthetic", "data.size=64", "data.channels=3", "data.image_size=8"
    )
    data = make(config.data)
    space = OWN.get(name, space).resize(input_shape=(3, 8, 8), classes=len(data.classes))
    strategy = make(config.strategy, space=space)
    if isinstance(strategy, Searcher):
        final_network(space, strategy.ask())(torch.randn(2, 3, 8, 8))
        return
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, CPU)
    before = [p.detach().clone() for p in strategy.arch_parameters()]
    steps_on_a_copy(net, strategy)

    found = search(
        net,
        strategy,
        data.loaders(16, one_level=not strategy.update.two_level, seed=0),
        SearchSettings(epochs=2, batch_size=16),
        record=Record(tmp_path),
        checkpoints=Checkpoints(tmp_path / "checkpoints", "search", {}),
        meta={"strategy": name},
    )

    kept = {f"beta.{n}" for n, c in space.choices.items() if c.keep is None}  # may have no effect
    after = strategy.named_arch_parameters()
    moved = {n: (a != b).any() for (n, a), b in zip(after.items(), before, strict=True)}
    assert all(on for n, on in moved.items() if n not in kept), "an alpha got no gradient"
    assert Architecture.load(tmp_path / "architectures" / "epoch_001.json") == found.architecture
    assert 0 <= found.discretised_accuracy <= 1
    assert final_network(space, found.architecture)(torch.randn(2, 3, 8, 8)).shape == (
        2,
        space.classes,
    )


REFUSED = {
    "drnas_progressive": "PartialMixedOp cannot mix; set strategy/mixed_op=full",
    "goldnas": "keeps several options of a row",
    "nsga2": "costs of options do not add up",
    "pareto": "costs of options do not add up",
    "pareto_gates": "costs of options do not add up",
    "pcdarts": "PartialMixedOp cannot mix; set strategy/mixed_op=full",
    "rdarts_dp": "has no edges to drop",
    "singlepath": "SuperKernelOp cannot mix; set strategy/mixed_op=full",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_nested_sizes_take_a_strategy_or_refuse_it_in_one_line(name: str):
    config = composed(
        *still(name), "data=synthetic", "data.size=64", "data.channels=3", "data.image_size=8"
    )
    space = conv_macro(
        channels=2, multiples=[1, 2], kernels=[3, 5], head_channels=8, hidden=[], last_kernel=5,
        norm=True, dropout=0.0, input_shape=(3, 8, 8), classes=10,
    )  # fmt: skip

    def searched() -> Architecture:
        strategy = make(config.strategy, space=space)
        if isinstance(strategy, Searcher):
            return strategy.ask()
        net = supernet(space, strategy.mixed_op)
        strategy.setup(net, CPU)
        steps_on_a_copy(net, strategy)
        found: Architecture = strategy.architecture()
        return found

    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            searched()
    else:
        assert final_network(space, searched())(torch.randn(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("path", TARGETS, ids=lambda p: str(p.relative_to(CONF)))
def test_yaml_lists_exactly_what_its_target_takes(path: Path):
    """A setting that is not there cannot be changed without `+`; a stale one breaks the target."""
    raw = OmegaConf.load(path)
    target = get_object(raw._target_)
    parameters = inspect.signature(target).parameters
    group = path.parent.relative_to(CONF)
    if target.__module__.startswith("torch"):
        assert {k for k in raw if not k.startswith("_") and k != "defaults"} <= set(parameters)
        return
    if group == Path("strategy"):
        listed = set(composed(f"strategy={path.stem}").strategy)
    else:
        listed = {k for k in raw if k != "defaults"}
    live = {
        "space", "input_shape", "classes", "candidates", "c_in", "c_out", "stride", "affine",
        "gates", "factors", "alive", "choice", "lr", "min_lr", "epoch", "epochs", "parameters",
    }  # fmt: skip
    accepted = {k for k, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    listed = {k for k in listed if not k.startswith("_")}
    assert listed <= accepted
    assert accepted - listed <= live


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    sorted(path for path in CONF.rglob("*.yaml") if path.parent.name not in FOLLOWS),
    ids=lambda p: str(p.relative_to(CONF)),
)
def test_every_choice_composes(path: Path):
    group = str(path.parent.relative_to(CONF))
    if group == "hydra/launcher":
        Plugins.instance()  # fills the store
        plugin = OmegaConf.load(path).defaults[0]
        if f"{plugin}.yaml" not in ConfigStore.instance().list(group):
            pytest.skip(f"the launcher '{plugin}' is not installed")
    if group == ".":
        composed()
        return
    config = composed(
        f"{group}={path.stem}" if group != "strategy/losses" else f"+{group}={path.stem}"
    )
    assert OmegaConf.to_container(config, resolve=False)
    assert group != "strategy" or ("searchers" in config.strategy._target_) == (
        path.stem in SEARCHERS
    )


@pytest.mark.parametrize(
    "path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF))
)
def test_yaml_is_short(path: Path):
    assert len(path.read_text().splitlines()) <= 60
