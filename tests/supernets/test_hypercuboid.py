"""The hypercuboid: shapes, costs, and what the supernet and the final network compute.

Sources: the sheet sharpdarts.md, section 4.
"""

from collections.abc import Sequence

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.hypercuboid import LAYERS, HypercuboidSpace, hypercuboid
from search_spaces.ops import SharpSepConv
from supernets.costs import candidate_macs, expected_macs, macs
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.network import final_network, supernet

CHAIN = ["sep_conv_3x3 1-2", "max_pool_3x3 2-2", "sep_conv_3x3 2-4"]


def made(**changes) -> HypercuboidSpace:
    sizes = dict(layers=3, channels=4, widths=3, candidates=["max_pool_3x3", "sep_conv_3x3"])
    return hypercuboid(
        **(sizes | dict(head_channels=8, input_shape=(3, 9, 11), classes=5) | changes)
    )


def architecture_of(space: HypercuboidSpace, names: Sequence[str]) -> Architecture:
    kept = {row.name: (name,) for row, name in zip(space.grid.rows, names, strict=True)}
    return Architecture.of(space, {LAYERS: kept})


def everything(space: HypercuboidSpace, gates: Tensor, factors: Tensor | None = None) -> Mixture:
    return Mixture({LAYERS: GroupMixture(gates, factors, [range(gates.size(1))] * len(gates))})


def test_a_softmax_is_over_all_widths_and_operations_of_a_layer():
    """N x N x P options: at 4 widths and 2 operations 32, for 8 layers 256 alphas in all."""
    grid = made(layers=8, widths=4).grid
    assert (len(grid.rows), grid.width) == (8, 32)
    assert grid.rows[0].names[:3] == ("max_pool_3x3 1-1", "sep_conv_3x3 1-1", "max_pool_3x3 1-2")
    assert grid.rows[0].options[3].kind == "conv"
    assert grid.linked


def test_widths_are_powers_of_two_and_every_second_layer_halves():
    space = made(channels=32, widths=4)
    assert space.widths == (32, 64, 128, 256)
    assert [space.stride(i) for i in range(4)] == [1, 2, 1, 2]


def test_a_map_is_the_sum_of_what_arrives():
    """By hand: each width of the second layer, from all widths and operations of the first."""
    space = made(layers=1, widths=2)
    net, x = supernet(space, MixedOp).eval(), torch.randn(2, 3, 9, 11)
    gates = torch.rand(1, 8)
    maps = [stem(x) for stem in net.stems]
    expected = 0
    for j in range(2):
        arrived = 0
        for i in range(2):
            for p in range(2):
                op = net.layers[0].mixed[i][j].ops[p]
                arrived = arrived + gates[0, 4 * i + 2 * j + p] * op(maps[i])
        expected = expected + net.ends[j](arrived)
    torch.testing.assert_close(net(x, everything(space, gates)), net.head(expected))
    halved = net(x, everything(space, gates, torch.tensor([0.5])))
    torch.testing.assert_close(halved, net(x, everything(space, gates / 2)))


def test_the_supernet_with_one_path_is_the_final_network():
    space = made()
    net, found = supernet(space, MixedOp, affine=True).eval(), architecture_of(space, CHAIN)
    final = final_network(space, found).eval()
    final.stem, final.end, final.head = net.stems[0], net.ends[2], net.head
    for i, (a, b, p) in enumerate([(0, 1, 1), (1, 1, 0), (1, 2, 1)]):
        final.layers[i] = net.layers[i].mixed[a][b].ops[p]
    x = torch.randn(2, 3, 9, 11)
    mixture = Mixture.of(found, space, torch.device("cpu"))
    torch.testing.assert_close(net(x, mixture), final(x))


def test_shapes_of_a_final_network():
    space = made()
    final = final_network(space, architecture_of(space, CHAIN))
    x = final.layers(final.stem(torch.randn(2, 3, 9, 11)))
    assert x.shape == (2, 16, 5, 6)
    assert isinstance(final.layers[0], SharpSepConv)


@pytest.mark.parametrize("size", [{}, {"channels": 6}])
def test_an_architecture_fits_other_widths_of_the_same_space(size: dict):
    space = made().resize(**size)
    final = final_network(space, architecture_of(made(), CHAIN))
    assert final(torch.randn(2, 3, 9, 11)).shape == (2, 5)


def test_expected_costs_of_a_path_are_those_counted():
    space = made(widths=2)
    net = supernet(space, MixedOp)
    for names in (
        ["sep_conv_3x3 1-2", "max_pool_3x3 2-2", "sep_conv_3x3 2-1"],
        ["max_pool_3x3 2-1", "sep_conv_3x3 1-1", "max_pool_3x3 1-2"],
    ):
        found = architecture_of(space, names)
        mixture = Mixture.of(found, space, torch.device("cpu"))
        gates = mixture.groups[LAYERS].gates.double()
        counted = macs(final_network(space, found))
        assert int(expected_macs(net, {LAYERS: gates})) == counted
        assert int((candidate_macs(net)[LAYERS] * gates).sum()) == counted - 8 * 5


def test_checkpointed_layers_compute_the_same():
    space = made(layers=2, widths=2)
    net, x = supernet(space, MixedOp), torch.randn(4, 3, 8, 8)
    gates = torch.rand(2, 8, requires_grad=True)
    found = []
    for again in (False, True):
        net.checkpoint_cells = again
        logits = net(x, everything(space, gates))
        weight = net.layers[0].mixed[0][1].ops[1].first[1].weight
        found.append((logits, *torch.autograd.grad(logits.pow(2).sum(), [gates, weight])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_options_drawn_apart_leave_no_map_but_no_error():
    space = made(layers=2, widths=2)
    net = supernet(space, MixedOp).eval()
    mixture = Mixture({LAYERS: GroupMixture(torch.ones(2, 8), None, [[0], [7]])})  # 1-1, 2-2
    y = net(torch.randn(2, 3, 8, 8), mixture)
    torch.testing.assert_close(y, net.head[-1].bias.expand(2, 5))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sep_conv_3x3 1-2", "max_pool_3x3 1-2", "sep_conv_3x3 2-4"], "row 1-2 behind .*1-2'"),
        (["sep_conv_3x3 1-3", "max_pool_3x3 2-2", "sep_conv_3x3 2-4"], "sep_conv_3x3 1-3"),
    ],
)
def test_a_chain_that_is_none_is_one_line(names: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        final_network(made(), architecture_of(made(), names))


def test_sizes_out_of_range_and_an_auxiliary_head_are_one_line():
    with pytest.raises(ValueError, match="widths: expected a whole number of at least 1"):
        made(widths=0)
    with pytest.raises(ValueError, match="unknown 'conv_9x9 1-1'"):
        made(candidates=["conv_9x9"])
    with pytest.raises(ValueError, match=r"^auxiliary_weight: .* set it to 0"):
        final_network(made(), architecture_of(made(), CHAIN), auxiliary=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gdas", "relaxation: draws the options of each row apart.*relaxation=softmax"),
        ("tas", "relaxation: draws the options of each row apart"),
        ("rdarts_dp", "regularisation.most: expected 0"),
        ("goldnas", "discretisation: keeps several options of a row"),
        ("pcdarts", "k: partial channels keep their number"),
        ("darts_pt", "pruning: decides the options of each row apart"),
    ],
)
def test_what_cannot_search_it_is_refused_by_name(name: str, message: str):
    def set_up() -> None:
        strategy = make(composed(f"strategy={name}").strategy, space=made())
        strategy.setup(supernet(made(), strategy.mixed_op), torch.device("cpu"))

    with pytest.raises(ValueError, match=message):
        set_up()


def test_a_rule_that_reads_no_path_is_refused_by_name():
    strategy = make(composed("strategy=snas").strategy, space=made())
    strategy.alphas[LAYERS].data[:, 2] = 3.0  # max_pool_3x3 1-2, in every layer
    with pytest.raises(ValueError, match="discretisation=strongest"):
        final_network(made(), strategy.architecture())


def test_a_candidate_that_keeps_its_width_is_refused():
    with pytest.raises(
        ValueError, match="candidates: 'skip_connect' turns 1 map of 4x4 into 2 of 2x2"
    ):
        supernet(made(candidates=["skip_connect", "sep_conv_3x3"]), MixedOp)
