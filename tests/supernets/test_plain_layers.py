"""Which layers read tensors alone: of ours those that are captured, and those of torch."""

import importlib
from pathlib import Path

import pytest
from torch import nn

from search_spaces.ops import Zero
from supernets.conv_stack import ConvStack
from supernets.final import FinalCell, FinalNetwork
from supernets.network import Network
from supernets.plain_layers import PLAIN, constants, reads_tensors_alone
from supernets.plain_transformer import ImageTransformer, TextTransformer
from supernets.transformer import SuperTransformer
from supernets.width_chain import WidthChain

ROOT = Path(__file__).resolve().parents[2]


# Modules whose networks are not captured: TAS reads the widths it drew, programs are not supernets,
# and traced networks hold their gates during a pass.
EAGER = ("search_spaces.slices", "supernets.program", "supernets.programs", "supernets.resnet",
         "supernets.resnets", "supernets.from_model", "supernets.traced")  # fmt: skip
# Those from which the layers of networks derive.
BASES = {ConvStack, FinalCell, FinalNetwork, ImageTransformer, Network, SuperTransformer}
BASES |= {TextTransformer, WidthChain}


def own_layers() -> set[type[nn.Module]]:
    found = set()
    for package in ("search_spaces", "supernets"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for value in vars(importlib.import_module(name.removesuffix(".__init__"))).values():
                if isinstance(value, type) and issubclass(value, nn.Module):
                    found.add(value)
    return {layer for layer in found if not layer.__module__.startswith("torch.")}


def test_every_layer_of_ours_is_known():
    eager = {layer for layer in own_layers() if layer.__module__ in EAGER}
    assert own_layers() - BASES - eager == PLAIN - eager


class Outside(Zero):
    """Like its parent, as far as it goes; from outside."""


class Speaking(Outside):
    def constants(self) -> int:
        return self.stride


class Quiet(Speaking):
    pass


@pytest.mark.parametrize(
    ("layer", "plain", "said"),
    [
        (nn.ReLU(), True, None),
        (Zero(4, 4, 2), True, None),
        (Outside(4, 4, 2), False, None),
        (Speaking(4, 4, 2), False, 2),
        (Quiet(4, 4, 2), False, None),
    ],
)
def test_a_subclass_speaks_for_itself(layer: nn.Module, plain: bool, said: int | None):
    assert (reads_tensors_alone(layer), constants(layer)) == (plain, said)
