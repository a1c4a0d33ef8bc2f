import pytest
import torch

from search_spaces.architecture import Architecture
from search_spaces.mbconv import CANDIDATES, mbconv
from search_spaces.ops import MBConv
from supernets.costs import macs, parameters
from supernets.network import final_network

OPTIONS = [name for name in CANDIDATES if name != "mbconv_3x3_e1"]
SMALL = dict(layers=3, channels=4, widths=[1, 2], strides=[1, 2], ends=[1, 2], candidates=OPTIONS)
MOBILE = dict(
    layers=20, channels=32, widths=[0.75, 1.25, 2.5, 3, 6], strides=[2, 2, 2, 1, 2],
    ends=[0.5, 10], candidates=OPTIONS, stem="mobile",
)  # fmt: skip


def made(sizes=SMALL, shape=(3, 8, 8), classes=4, **changes):
    return mbconv(**(sizes | dict(input_shape=shape, classes=classes) | changes))


def test_blocks_by_hand():
    blocks = made().chain.blocks
    assert [(b.c_in, b.c_out, b.stride) for b in blocks] == [
        (4, 4, 1), (4, 4, 1), (4, 4, 1), (4, 8, 2), (8, 8, 1),
    ]  # fmt: skip
    assert blocks[0].names == ("mbconv_3x3_e1",)
    assert blocks[4].names == ("mbconv_3x3_e6",)


def test_a_skip_is_an_option_where_it_is_the_identity():
    assert ["skip_connect" in b.names for b in made().chain.blocks] == [
        False, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.slow
def test_singlepath_the_space_of_the_paper():
    """20 blocks are searched, the first of each stage without a skip: 4^5 * 5^15 networks; the
    resolution of each stage; every block's shape."""
    space = made(MOBILE, (3, 224, 224), 1000)
    searched = [b for b in space.chain.blocks if len(b.options) > 1]
    assert [len(b.options) for b in searched] == [4, 5, 5, 5] * 5
    assert [b.c_out for b in searched[::4]] == [24, 40, 80, 96, 192]
    assert [b.stride for b in searched[::4]] == [2, 2, 2, 1, 2]
    kept = {b.name: ["mbconv_3x3_e6" if len(b.options) > 1 else b.names[0]]
            for b in space.chain.blocks}  # fmt: skip
    with torch.device("meta"):
        net = final_network(space, Architecture.of(space, {"blocks": kept}))
        x = net.stem(torch.zeros(1, 3, 224, 224))
        sides = []
        for layer in net.layers:
            x = layer([x])
            sides.append(x.size(2))
    assert sides == [112] + [56] * 4 + [28] * 4 + [14] * 8 + [7] * 4 + [7]
    assert x.size(1) == 320
    assert 4.0e6 < parameters(net) < 5.5e6
    assert 3.0e8 < macs(net) < 6.0e8


def test_mbconv_parameters_by_hand():
    op = MBConv(4, 6, 2, affine=True, search=False, kernel_size=5, expansion=3)
    assert parameters(op) == 4 * 12 + 2 * 12 + 12 * 25 + 2 * 12 + 12 * 6 + 2 * 6
    assert op(torch.randn(2, 4, 7, 7)).shape == (2, 6, 4, 4)


def test_mbconv_adds_its_input_where_the_shape_stays():
    op = MBConv(4, 4, 1, affine=True, search=False, kernel_size=3, expansion=3)
    torch.nn.init.zeros_(op.layers[-1].weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(op(x), x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 1}, "widths: expected 1 to 1, at most one per layer, found 2"),
        ({"strides": [1]}, "strides: expected one per width, 2, found 1"),
        ({"strides": [1, 3]}, "strides"),
        ({"ends": [1]}, "ends: expected 2 widths"),
        ({"candidates": ["skip_connect"]}, "edge 3-4 has none"),
        ({"candidates": ["conv_9x9"]}, "unknown 'conv_9x9'"),
    ],
)
def test_a_wrong_size_is_one_line(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        made(**changes)
