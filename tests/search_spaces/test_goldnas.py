"""The GOLD-NAS space: sizes of the sheet goldnas.md, section 2, and what sets it off from DARTS."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.goldnas import CANDIDATES, goldnas
from search_spaces.ops import Skip
from search_spaces.space import Space
from strategies.relaxation.sigmoid import Sigmoid
from strategies.searchers.random import RandomSearch
from supernets.costs import parameters
from supernets.final import ChosenOps
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.network import final_network, supernet


def space(layers: int = 14, channels: int = 36, **more) -> Space:
    settings = dict(nodes=4, candidates=list(CANDIDATES), input_shape=(3, 32, 32), classes=10)
    return goldnas(layers=layers, channels=channels, **(settings | more))


def test_every_layer_has_switches_of_its_own():
    groups = space().groups
    assert list(groups)[:5] == ["00_normal", "01_normal", "02_normal", "03_normal", "04_reduce"]
    assert [i for i, name in enumerate(groups) if name.endswith("reduce")] == [4, 9]
    assert sum(len(cell.edges) * cell.width for cell in groups.values()) == 392


@pytest.mark.parametrize(("layers", "decades"), [(14, 117.5), (20, 167.8)])
def test_number_of_architectures(layers: int, decades: float):
    cells = space(layers=layers).groups.values()
    inputs = [len(cell.into(node)) * cell.width for cell in cells for node in cell.targets]
    assert sum(math.log10(2**n - 1) for n in inputs) == pytest.approx(decades, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "layers", "weights"), [(36, 14, 5.218), (36, 20, 7.304)])
def test_weights_of_the_supernet(channels: int, layers: int, weights: float):
    with torch.device("meta"):
        net = supernet(space(layers, channels), MixedOp)
    assert parameters(net) / 1e6 == pytest.approx(weights, abs=5e-4)


def test_skip_connect_is_normalised_and_its_reduction_has_no_scale():
    x = 3 * torch.randn(4, 6, 8, 8) + 1
    skip = CANDIDATES["skip_connect"](6, 6, 1, affine=True, search=False)
    assert isinstance(skip, Skip)
    assert not list(skip.parameters())
    expected = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(skip(x), expected, rtol=1e-4, atol=1e-4)
    reduced = CANDIDATES["skip_connect"](6, 6, 2, affine=True, search=False)
    assert reduced(x).shape == (4, 6, 4, 4)
    assert not reduced.bn.affine


def test_drop_path_spares_a_skip_of_stride_1():
    torch.manual_seed(0)
    edge = ChosenOps([CANDIDATES["skip_connect"]], 4, 4, 1)
    x, edge.drop = torch.randn(16, 4, 4, 4), 0.9
    torch.testing.assert_close(edge(x), edge.ops[0](x))
    reduction = ChosenOps([CANDIDATES["skip_connect"]], 4, 4, 2)
    reduction.drop = 0.9
    assert (reduction(x).flatten(1) == 0).all(1).any()


def kept(space: Space, *names: str) -> Architecture:
    return Architecture.of(
        space,
        {g: {edge.name: names for edge in cell.edges} for g, cell in space.groups.items()},
    )


def test_only_the_stem_and_the_head_scale_and_shift_in_a_final_network():
    small = space(3, 4)
    net = final_network(small, kept(small, *CANDIDATES), auxiliary=True)
    affine = {n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and m.affine}
    assert affine
    assert {name.split(".")[0] for name in affine} == {"stem", "auxiliary"}


def test_one_candidate_with_gate_1_is_the_plain_network():
    """Supernet and final network have the same weights by the same names, and the same output."""
    small = space(3, 4, candidates=["sep_conv_3x3"], input_shape=(3, 16, 16))
    net, plain = supernet(small, MixedOp), final_network(small, kept(small, "sep_conv_3x3"))
    plain.load_state_dict(net.state_dict())
    groups = {}
    for name, cell in small.groups.items():
        table = torch.full((len(cell.edges), 1), 60.0)
        gates, _ = Sigmoid()(table, torch.ones_like(table, dtype=torch.bool))
        groups[name] = GroupMixture(gates, None, [[0]] * len(cell.edges))
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(net(x, Mixture(groups)), plain(x))


def test_several_candidates_of_an_edge_come_back_from_a_file(tmp_path: Path):
    small = space(3, 4)
    found = kept(small, *CANDIDATES)
    found.save(tmp_path / "a.json")
    assert Architecture.load(tmp_path / "a.json") == found
    again = small.resize(channels=8)
    assert (again.name, again.groups.keys()) == ("goldnas", small.groups.keys())
    found.check(again)


def test_an_architecture_needs_the_layers_it_was_found_with():
    found = kept(space(3, 4), *CANDIDATES)
    with pytest.raises(
        ValueError, match=r"layers: the 3 layers .* no normal cell after reduction 2"
    ):
        final_network(space(4, 4), found)


def test_an_unknown_candidate_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown 'max_pool_3x3'; known: skip_connect, sep_"):
        space(candidates=["skip_connect", "max_pool_3x3"])
    with pytest.raises(ValueError, match=r"nodes: expected a whole number"):
        space(nodes=0)


class Pool(nn.Module):
    """An operation from outside."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool):
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


def test_an_operation_from_outside_may_have_the_name_of_one_of_darts():
    extra = {"max_pool_3x3": partial(Pool)}
    small = space(3, 4, candidates=["skip_connect", "max_pool_3x3"], operations=extra)
    net = final_network(small.resize(channels=8), kept(small, "max_pool_3x3"))
    assert any(isinstance(module, Pool) for module in net.modules())


def test_random_architectures_are_drawn_from_the_whole_space():
    """Any set of candidates but the empty one into each node, hence each candidate in 8 of 15."""
    torch.manual_seed(0)
    small = space(3, 4)
    search, counts, draws = RandomSearch(small), 0, 200
    for _ in range(draws):
        choices = search.ask().choices["00_normal"]
        assert {edge.split("-")[1] for edge in choices} == {"2", "3", "4", "5"}
        counts += "skip_connect" in choices.get("0-2", ())
    assert counts / draws == pytest.approx(8 / 15, abs=0.1)
