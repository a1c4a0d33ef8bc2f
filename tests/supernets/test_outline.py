"""The layers of final networks of every family, with shapes and costs that add up."""

import pytest
import torch
from test_every_config import composed, make
from torch import nn

from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from supernets.costs import macs, parameters
from supernets.network import Network, final_network
from supernets.outline import outline, repeats


class Toy(Network):
    """A list, a sequence of composite modules, a plain one, and what is never called."""

    def __init__(self, space: Space):
        super().__init__()
        self.space, self.auxiliary = space, nn.Linear(4, 4)
        self.first = nn.ModuleList([nn.Conv2d(3, 4, 1, bias=False), nn.Identity()])
        self.twice = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.ReLU())
        self.body = nn.Sequential(nn.Sequential(nn.AvgPool2d(2)), nn.AdaptiveAvgPool2d(1))
        self.unused, self.head = nn.Linear(7, 7), nn.Linear(4, 10)

    def logits(self, x: torch.Tensor, mixture: None) -> torch.Tensor:
        for layer in self.first:
            x = layer(x)
        x = self.body(self.twice(self.twice(x)))
        return self.head(x.flatten(1))


def test_layers_by_hand(toy_darts: Space):
    found = outline(Toy(toy_darts))  # images (3, 16, 16)
    assert [(one["layer"], one["shape"], one["parameters"], one["macs"]) for one in found] == [
        ("first.0", [4, 16, 16], 12, 12 * 256),
        ("twice", [4, 16, 16], 144, 2 * 144 * 256),
        ("body.0", [4, 8, 8], 0, 0),
        ("body.1", [4, 1, 1], 0, 0),
        ("head", [10], 50, 40),
    ]


FAMILIES = ("darts", "nasbench201", "goldnas", "chain", "mbconv", "modular", "hypercuboid", "tas")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_of_every_family_make_up_the_network(name: str):
    space = make(composed(f"space={name}").space, input_shape=(3, 16, 16), classes=7)
    architecture = RandomSearch(space).ask()
    with torch.device("meta"):
        net = final_network(space, architecture)
    found = outline(net)
    assert len(found) > 3
    assert sum(one["parameters"] for one in found) == parameters(net)
    assert sum(one["macs"] for one in found) == macs(net)
    assert found[0]["layer"].startswith("stem")
    assert (found[-1]["layer"], found[-1]["shape"]) == ("head", [7])
    assert {choice for one in found for choice in one["choices"]} <= set(space.choices)
    assert net.training  # as it was


def test_an_auxiliary_head_is_no_layer(toy_darts: Space):
    net = final_network(toy_darts, RandomSearch(toy_darts).ask(), auxiliary=True)
    assert [one["layer"] for one in outline(net)] == [
        "stem", "layers.0", "layers.1", "layers.2", "head",
    ]  # fmt: skip


def test_how_often_a_choice_stands_in_a_network(toy_darts: Space):
    deeper = toy_darts.resize(layers=8)
    net = final_network(deeper, RandomSearch(deeper).ask())
    assert repeats(net) == {"normal": 6, "reduce": 2}
    by_choice = [one["choices"] for one in outline(net) if one["choices"]]
    assert by_choice.count(["reduce"]) == 2
    chain = make(composed("space=chain").space, input_shape=(3, 16, 16), classes=7)
    assert repeats(final_network(chain, RandomSearch(chain).ask())) == {"blocks": 1}
