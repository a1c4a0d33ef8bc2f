"""What every ingredient keeps to, and what a strategy asks of those from outside."""

from collections.abc import Hashable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_every_config import CONF, composed
from torch import Tensor, nn

from search_spaces.darts import darts
from search_spaces.settings import NotNegative
from strategies.contracts import (
    Ingredient,
    LossTerm,
    Preference,
    Pruning,
    Regularisation,
    Relaxation,
    Stopping,
    Topology,
    Update,
    kinds_of,
)
from strategies.losses.label_smoothing import LabelSmoothing
from strategies.relaxation.sigmoid import Sigmoid
from strategies.relaxation.softmax import Softmax
from strategies.strategy import Strategy
from strategies.update.first_order import FirstOrder
from supernets.network import Network, supernet

SPACE = darts(
    layers=3, nodes=1, channels=4, input_shape=(3, 8, 8), classes=3,
    candidates=["none", "skip_connect", "sep_conv_3x3"],
)  # fmt: skip
KINDS = {
    "relaxation": Relaxation,
    "topology": Topology,
    "update": Update,
    "losses": LossTerm,
    "pruning": Pruning,
    "stopping": Stopping,
    "regularisation": Regularisation,
    "preference": Preference,
}


def test_a_kind_of_ingredient_is_a_field_of_the_strategy():
    assert kinds_of(Strategy) == KINDS


def names(kind: str) -> list[str]:
    return sorted(path.stem for path in (CONF / "strategy" / kind).glob("*.yaml"))


CHOICES = [(kind, name) for kind in KINDS for name in names(kind) if name != "none"]
ALPHAS = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
ALIVE = torch.tensor([[True, True, False], [False] * 3, [True] * 3])


def made(*overrides: str, **changes: Any) -> Strategy:
    config = composed("strategy=darts", *overrides).strategy
    return instantiate(config, _convert_="all")(space=SPACE, **changes)


def ready(strategy: Strategy) -> Network:
    net = supernet(SPACE, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    return net


def built(kind: str, name: str) -> Any:
    settings = OmegaConf.load(CONF / "strategy" / kind / f"{name}.yaml")
    return instantiate(settings[name] if kind == "losses" else settings, _convert_="all")


@pytest.mark.parametrize(("kind", "name"), CHOICES)
def test_every_ingredient_is_one_of_its_kind(kind: str, name: str):
    ingredient = built(kind, name)
    assert isinstance(ingredient, KINDS[kind])
    if isinstance(ingredient, nn.Module):  # its state is torch's, not the contract's None
        assert ingredient.state_dict() is not None


@pytest.mark.parametrize(
    "name", [n for n in names("relaxation") if n != "threshold"]
)  # threshold: gates of a network
def test_every_relaxation_has_gates_of_zero_where_nothing_is_alive(name: str):
    relaxation = built("relaxation", name).eval()
    gates, index = relaxation(ALPHAS, ALIVE)
    assert gates.shape == ALPHAS.shape
    assert index is None or index.shape == ALPHAS.shape[:1]
    for table in (gates, relaxation.expected(ALPHAS, ALIVE)[0]):
        assert bool((table[~ALIVE] == 0).all())


@pytest.mark.parametrize("name", names("discretisation"))
def test_every_rule_names_edges_and_their_candidates(name: str):
    rule = built("discretisation", name)
    cell = next(iter(SPACE.groups.values()))
    alive = torch.ones(len(cell.edges), cell.width, dtype=torch.bool)
    kept = rule(cell, torch.rand(alive.shape), None, alive)
    edges = {edge.name: edge.names for edge in cell.edges}
    assert kept
    assert all(set(candidates) <= set(edges[edge]) for edge, candidates in kept.items())


HOOKS = ("setup", "epoch_start", "before_step", "after_step", "epoch_end", "keep")


def record(strategy: Strategy) -> list[tuple[str, str]]:
    """The hooks of its ingredients that are called from now on, each with whose it was."""
    calls: list[tuple[str, str]] = []
    parts = {
        "relaxation": strategy.relaxation,
        "topology": strategy.topology,
        "update": strategy.update,
        "pruning": strategy.pruning,
        "stopping": strategy.stopping,
        **strategy.losses,
    }

    def noted(name: str, hook: str, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append((name, hook))
            return method(*args, **kwargs)

        return call

    for name, ingredient in parts.items():
        for hook in (*HOOKS, "step") if name == "update" else HOOKS:
            setattr(ingredient, hook, noted(name, hook, getattr(ingredient, hook)))
    return calls


def test_hooks_are_called_in_the_order_of_the_ingredients():
    losses = "+strategy/losses=[label_smoothing,gate_cost]"
    strategy = made(
        "strategy/topology=edge_normalisation", "strategy/pruning=without_none", losses,
        stopping=Stopping(),
    )  # fmt: skip
    calls = record(strategy)
    order = ["relaxation", "topology", "update", "pruning", "stopping",
             "label_smoothing", "gate_cost"]  # fmt: skip

    def called() -> list[tuple[str, str]]:
        found = calls.copy()
        calls.clear()
        return found

    def of_all(hook: str) -> list[tuple[str, str]]:
        return [(name, hook) for name in order]

    net = ready(strategy)
    assert called() == of_all("setup")
    strategy.epoch_start(0, 2)
    assert called() == of_all("epoch_start")
    batch = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    strategy.step(net, batch, batch, progress=0.0, move_alphas=True)
    assert called() == [*of_all("before_step"), ("update", "step"), *of_all("after_step")]
    assert not strategy.epoch_end(net, None, 0.5)
    assert called() == of_all("epoch_end")
    assert strategy.keep(strategy.architecture(), last=True) == []
    assert called() == of_all("keep")


class Speaking(LossTerm):
    def __call__(self, net: Any, batch: Any, logits: Tensor, mixture: Any) -> Tensor:
        return logits.new_zeros(())

    def constants(self) -> Hashable:
        return ()


class Silent(Speaking):
    """Adds a Python number, of which the parent's `constants` cannot know."""

    sharpness = 1.0


class Says:
    """Not an ingredient by itself."""

    def constants(self) -> Hashable:
        return ()


class Mixed(Says, Silent):
    """Inherits `constants` from a class that is no ingredient."""


class SaysAgain(Silent):
    def constants(self) -> Hashable:
        return self.sharpness


@pytest.mark.parametrize(
    ("term", "known"), [(Speaking, True), (Silent, False), (Mixed, False), (SaysAgain, True)]
)
def test_constants_are_those_of_the_class_itself(term: type[LossTerm], known: bool):
    strategy = made(losses={"term": term()})
    ready(strategy)
    assert (strategy.constants() is not None) is known


@pytest.mark.parametrize("parent", [Softmax, Sigmoid, FirstOrder, LabelSmoothing])
def test_constants_of_our_ingredients_are_not_inherited(parent: type[Ingredient]):
    assert parent.constants is not Ingredient.constants
    assert type("Child", (parent,), {}).constants is Ingredient.constants


def test_a_state_has_an_entry_for_each_ingredient_that_has_one():
    """In the order of the ingredients; a module's is there without buffers, too."""
    strategy = made(
        "strategy/topology=edge_normalisation", "strategy/pruning=without_none",
        "+strategy/losses=[label_smoothing,gate_cost]",
    )  # fmt: skip
    ready(strategy)
    entries = strategy.state_dict()["ingredients"]
    assert [sorted(entry) for entry in entries] == [["temperature"], [], ["pressure"]]
    saved = [{"temperature": torch.tensor(0.5)}, *entries[1:]]
    strategy.load_state_dict(strategy.state_dict() | {"ingredients": saved})
    assert strategy.relaxation.temperature == 0.5
    with pytest.raises(ValueError, match="zip"):
        strategy.load_state_dict(strategy.state_dict() | {"ingredients": entries[:2]})


class Plain:
    """Has what it takes, and does not say so."""

    roles = ("train",)

    def __call__(self, *given: Any) -> None: ...


@pytest.mark.parametrize(
    ("changes", "name", "base"),
    [
        ({"relaxation": Plain()}, "relaxation", "Relaxation"),
        ({"relaxation": nn.Softmax(1)}, "relaxation", "Relaxation"),
        ({"topology": Plain()}, "topology", "Topology"),
        ({"update": Plain()}, "update", "Update"),
        ({"update": None}, "update", "Update"),
        ({"pruning": Stopping()}, "pruning", "Pruning"),
        ({"stopping": Plain()}, "stopping", "Stopping"),
        ({"losses": {"mine": Plain()}}, r"losses\.mine", "LossTerm"),
    ],
)
def test_what_is_not_of_its_kind_is_refused_by_its_setting(changes: Any, name: str, base: str):
    expected = rf"^{name}: expected .*strategies\.contracts\.{base}, found \S+$"
    with pytest.raises(ValueError, match=expected):
        made(**changes)


def test_a_rule_is_a_function():
    with pytest.raises(ValueError, match=r"^discretisation: expected a function, found"):
        made(discretisation="strongest")


def test_a_module_is_named_before_its_contract():
    """Else the state of the contract, which is none, would hide that of the module."""
    with pytest.raises(TypeError, match=r"Wrong: name nn\.Module as the first of its base classes"):
        type("Wrong", (Pruning, nn.Module), {})
    assert type("Right", (nn.Module, Pruning), {})().state_dict() == {}


@pytest.mark.parametrize("kind", [Relaxation, Topology, Update, LossTerm])
def test_a_kind_asks_for_its_method(kind: type[Ingredient]):
    with pytest.raises(TypeError, match="abstract"):
        type("Empty", (kind,), {})()


def test_annotations_alone_check_an_ingredient_from_outside():
    class Mine(LossTerm):
        def __init__(self, weight: NotNegative):
            self.weight = weight

        def __call__(self, *given: Any) -> Any: ...

    assert Mine(3).weight == 3
    with pytest.raises(ValueError, match=r"^weight: expected a number of at least 0, found -1$"):
        Mine(-1)
