"""Networks of programs."""

import pickle
from random import Random

import pytest
import torch
from torch import nn

from search_spaces.architecture import Architecture
from search_spaces.decisions import count, draw, mutate, replay
from search_spaces.language import layer, or_
from search_spaces.programs import PROGRAM, modular, program_space
from search_spaces.space import Space, family
from supernets.costs import macs, parameters
from supernets.mixed_op import MixedOp
from supernets.network import final_network, supernet
from supernets.program import FinalProgram, Map, build_module
from supernets.skeleton import pool_linear

SIZES = dict(widths=[1, 2, 4], kernels=[1, 3, 5], rates=[0.1, 0.3], units=[1, 2])


def space_of(layers: int = 2, **sizes) -> Space:
    shapes = dict(input_shape=(1, 8, 8), classes=3)
    return modular(**{"layers": layers, "channels": 4, **SIZES, **shapes, **sizes})


def architecture_of(space: Space, decisions) -> Architecture:
    return Architecture.of(space, {PROGRAM: space.program.kept(decisions)})


def decided(**chosen) -> Architecture:
    """Of one layer: first options, except for these, `units_width=1` for "units/width"."""
    space = space_of(1)
    rows = {f"layer[0]/{name.replace('_', '/')}": i for name, i in chosen.items()}
    return space, architecture_of(space, tuple(rows.items()))


def test_counts_of_the_modular_space():
    """2 numbers of units x 3 widths x 3 kernels x 3 norms x 3 dropouts, twice, and 2 pools."""
    assert count(space_of(1).program.module) == 2 * 162 + 2
    assert count(space_of(5).program.module) == 326**5
    assert len(space_of(5).program.rows) == 5 * 9


def test_deeparchitect_1_a_replayed_model_has_the_same_network(tmp_path):
    """Replayed from an architecture file: the same decisions, modules and parameters."""
    space, rng = space_of(3), Random(0)
    module, seen = space.program.module, set()
    for _ in range(30):
        decisions = draw(module, rng)
        architecture_of(space, decisions).save(tmp_path / "a.json")
        again = Architecture.load(tmp_path / "a.json")
        assert space.program.model(again.choices[PROGRAM]) == (replay(module, decisions), decisions)
        with torch.device("meta"):
            nets = [final_network(space, a) for a in (architecture_of(space, decisions), again)]
        assert str(nets[0]) == str(nets[1])
        assert parameters(nets[0]) == parameters(nets[1])
        seen.add(parameters(nets[0]))
    assert len(seen) > 20


def test_parameters_and_macs_by_hand():
    """Stem 1 -> 4 channels with batch norm, a 3x3 convolution to 8 with bias, a linear layer."""
    space, plain = decided(units_width=1, units_kernel=1)
    net = final_network(space, plain)
    stem, conv, head = 1 * 4 * 9, 4 * 8 * 9, 8 * 3
    assert parameters(net) == stem + 8 + conv + 8 + head + 3
    assert macs(net) == 64 * (stem + conv) + head


def test_every_kind_of_layer_stands_where_the_decisions_say():
    space, found = decided(
        kind=1, units=1, units_width=2, units_norm=1, units_order=1, units_dropout=1, units_rate=1
    )
    net = final_network(space, found)
    residual = net.body[0]
    kinds = [type(m) for m in residual.module.modules() if not isinstance(m, nn.Sequential)]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Dropout] * 2
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout)} == {0.3}
    assert residual.shortcut.weight.shape == (16, 4, 1, 1)


@pytest.mark.parametrize("sides", [(8, 8), (7, 5), (1, 1)])
def test_every_drawn_network_computes_and_learns(sides):
    space, rng = space_of(4, input_shape=(1, *sides)), Random(1)
    for _ in range(12):
        net = final_network(space, architecture_of(space, draw(space.program.module, rng)))
        logits = net(torch.randn(2, 1, *sides))
        assert logits.shape == (2, 3)
        logits.sum().backward()
        assert all(p.grad is not None for p in net.parameters())


def test_rows_that_a_model_does_not_have_change_nothing():
    space, plain = decided(kind=2)
    rows = {**plain.choices[PROGRAM], "layer[0]/units/width": ("4",)}
    other = Architecture.of(space, {PROGRAM: rows})
    assert other != plain
    nets = [final_network(space, found) for found in (plain, other)]
    assert str(nets[0]) == str(nets[1])
    decisions = space.program.model(rows)[1]
    assert architecture_of(space, decisions) == plain


def test_an_architecture_keeps_its_meaning_at_other_widths():
    """Widths are multiples of `channels`, as a final network has more than a searched one."""
    space, found = decided(units_width=1)
    wide = final_network(space.resize(channels=6), found)
    assert wide.body[0][0][0].weight.shape == (12, 6, 1, 1)


def test_a_mutation_stays_in_the_space():
    space, rng = space_of(3), Random(2)
    decisions = draw(space.program.module, rng)
    for _ in range(20):
        decisions = mutate(space.program.module, decisions, rng)
        architecture_of(space, decisions).check(space)


def test_a_space_is_pickled():
    space = space_of(2)
    again = pickle.loads(pickle.dumps(space))
    assert again.settings == space.settings
    assert again.program.rows == space.program.rows


def test_concat_joins_channels_and_a_residual_crosses_poolings():
    """Odd sides: poolings and the strided 1x1 convolution round alike."""
    pool = {"kind": "max_pool", "size": 2}
    both = {"kind": "concat", "parts": [pool, {"kind": "average_pool", "size": 2}]}
    tree = {"kind": "residual", "parts": [{"kind": "sequence", "parts": [both, pool]}]}
    module, after = build_module(tree, Map(3))
    assert after == Map(6, 4)
    assert module(torch.randn(2, 3, 7, 7)).shape == (2, 6, 2, 2)


def test_unknown_layers_and_unequal_parts_are_refused():
    with pytest.raises(ValueError, match=r"^layer: unknown 'cnov'; known: conv, batch_norm, "):
        build_module({"kind": "cnov"}, Map(3))
    parts = [{"kind": "relu"}, {"kind": "max_pool", "size": 2}]
    with pytest.raises(ValueError, match=r"^concat: .* found strides \[1, 2\]"):
        build_module({"kind": "concat", "parts": parts}, Map(3))


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match=r"^conv: expected an odd kernel, .*, found 2; set 3$"):
        build_module({"kind": "conv", "filters": 4, "kernel": 2}, Map(3))


def test_a_supernet_is_refused():
    with pytest.raises(ValueError, match=r"^space modular has no supernet; "):
        supernet(space_of(2), MixedOp)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"kernels": [3, 4]}, "kernels: expected odd numbers, found 4"),
        ({"widths": [1, 1]}, "'width': a value is given twice: 1, 1"),
        ({"units": []}, "'units': expected at least one value, found none"),
        (
            {"operations": {"mine": nn.Identity}},
            "operations: space modular is a program; expected {}",
        ),
        (
            dict(layers=1, widths=[1], kernels=[3], rates=[0.1], units=[1], channels=0),
            "channels: expected a whole number of at least 1",
        ),
        ({"layers": 0}, "layers: expected a whole number of at least 1"),
    ],
)
def test_wrong_sizes_are_refused(sizes, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        space_of(**sizes)


@family("named", {})
def named(*, channels: int, **common):
    """A program with a value that means something else in an architecture file."""
    module = or_("norm", none=layer("relu"), batch=layer("batch_norm"))
    return program_space(module, channels=channels, **common)


def test_a_value_called_none_is_refused():
    with pytest.raises(ValueError, match=r"^space named: 'norm' has a value 'none', "):
        named(channels=4, input_shape=(1, 8, 8), classes=3)


def test_a_final_network_is_data():
    layout = {
        "image_channels": 1,
        "stem_channels": 4,
        "modules": {"kind": "sequence", "parts": [{"kind": "conv", "filters": 5, "kernel": 3}]},
        "classes": 2,
    }

    def stem(c_in: int, channels: int):
        return nn.Conv2d(c_in, channels, 1), nn.Identity()

    net = FinalProgram(layout, stem=stem, head=pool_linear)
    assert net(torch.zeros(3, 1, 6, 6)).shape == (3, 2)
