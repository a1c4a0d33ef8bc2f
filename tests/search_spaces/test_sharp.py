"""The sharpDARTS spaces: the sheet sharpdarts.md, sections 1 and 5, tests 2 and 5."""

import pickle

import pytest
import torch
from equal_forms import assert_native_equal, differences
from test_every_config import composed, make
from torch import nn

from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES as DARTS
from search_spaces.darts import sharp
from search_spaces.ops import ResizablePool, SharpSepConv
from search_spaces.sharp import CANDIDATES
from search_spaces.space import Space
from supernets.mixed_op import MixedOp
from supernets.native import build
from supernets.network import final_network

PLAIN = {"affine": False, "search": True}
SETS = {
    "sharp": (
        "none max_pool_3x3 skip_connect sep_conv_3x3 dil_conv_3x3 "
        "flood_conv_3x3 dil_flood_conv_3x3 choke_conv_3x3 dil_choke_conv_3x3"
    ),
    "sharper": (
        "none max_pool_3x3 avg_pool_3x3 skip_connect sep_conv_3x3 sep_conv_5x5 sep_conv_7x7 "
        "dil_conv_3x3 dil_conv_5x5 flood_conv_3x3 flood_conv_5x5 dil_flood_conv_3x3"
    ),
}
CONVOLUTIONS = [name for name in CANDIDATES if "conv" in name]


def weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def space_of(name: str, *overrides: str) -> Space:
    config = composed(f"space={name}", "strategy=darts", "experiment=paper", *overrides)
    return make(config.space, input_shape=(3, 9, 11), classes=4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sep_conv_3x3", 3240), ("choke_conv_3x3", 2916), ("flood_conv_3x3", 11988)],
)
def test_sharpdarts_2_weights_at_36_channels(name: str, expected: int):
    assert weights(CANDIDATES[name](36, 36, 1, **PLAIN)) == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_sharpdarts_2_side_of_the_output(kernel_size: int, dilation: int, stride: int):
    op = SharpSepConv(3, 4, stride, kernel_size=kernel_size, dilation=dilation, **PLAIN)
    expected = (2, 4, -(-9 // stride), -(-12 // stride))
    assert op(torch.randn(2, 3, 9, 12)).shape == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", CANDIDATES)
def test_sharpdarts_b_no_candidate_shrinks_its_map(name: str, stride: int):
    """The public code does, in `dil_flood_conv_5x5`."""
    op = CANDIDATES[name](4, 4, stride, **PLAIN)
    assert op(torch.randn(2, 4, 9, 11)).shape == (2, 4, -(-9 // stride), -(-11 // stride))


@pytest.mark.parametrize("name", [n for n in CONVOLUTIONS if f"dil_{n}" in CANDIDATES])
def test_sharpdarts_5_dilated_and_undilated_have_equal_weights(name: str):
    dilated = "dil_conv_" + name.removeprefix("sep_conv_") if "sep" in name else f"dil_{name}"
    assert weights(CANDIDATES[name](8, 8, 1, **PLAIN)) == weights(
        CANDIDATES[dilated](8, 8, 1, **PLAIN)
    )


def test_sharpdarts_5_sep_and_dil_have_equal_weights_unlike_those_of_darts():
    found = {
        kind: [weights(table[f"{op}_conv_3x3"](8, 8, 1, **PLAIN)) for op in ("sep", "dil")]
        for kind, table in {"sharp": CANDIDATES, "darts": DARTS}.items()
    }
    assert found["sharp"][0] == found["sharp"][1] == found["darts"][0] > found["darts"][1]


def test_only_the_first_convolution_is_dilated_and_strided():
    op = CANDIDATES["dil_flood_conv_5x5"](4, 6, 2, **PLAIN)
    found = [m for m in op.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [(m.in_channels, m.stride, m.dilation, m.padding) for m in found] == [
        (4, (2, 2), (2, 2), (4, 4)), (24, (1, 1), (1, 1), (2, 2)),
    ]  # fmt: skip


def test_an_average_counts_the_padding():
    pool = ResizablePool(1, 1, 1, affine=True, search=False, kind="avg")
    expected = torch.tensor([[4, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9
    torch.testing.assert_close(pool(torch.ones(1, 1, 3, 3))[0, 0], expected)


def test_a_pool_changes_its_channels_by_a_convolution():
    pool = ResizablePool(3, 5, 2, affine=True, search=False, kind="max")
    assert pool(torch.randn(2, 3, 7, 8)).shape == (2, 5, 4, 4)
    assert [type(layer) for layer in pool] == [nn.MaxPool2d, nn.Conv2d, nn.BatchNorm2d]


@pytest.mark.parametrize("name", SETS)
def test_candidates_of_the_presets(name: str):
    for cell in space_of(name).cells.values():
        assert [list(edge.names) for edge in cell.edges] == [SETS[name].split()] * 14


def test_a_space_is_pickled_and_its_architecture_saved(tmp_path):
    space = space_of("sharp", "space.layers=3", "space.nodes=1", "space.channels=4")
    copy = pickle.loads(pickle.dumps(space))
    assert (copy.family, copy.settings) == (sharp, space.settings)
    names = ("choke_conv_3x3", "dil_flood_conv_3x3")
    kept = {edge: (n,) for edge, n in zip(("0-2", "1-2"), names, strict=True)}
    Architecture.of(space, {"normal": kept, "reduce": kept}).save(tmp_path / "found.json")
    again = Architecture.load(tmp_path / "found.json")
    again.check(sharp(**{k: v for k, v in again.space.items() if k != "name"}))
    assert final_network(space, again)(torch.randn(2, 3, 9, 11)).shape == (2, 4)


def mixed_space() -> Space:
    candidates = ["avg_pool_3x3", "sep_conv_3x3", "dil_flood_conv_3x3", "choke_conv_3x3"]
    return sharp(
        layers=3, nodes=2, channels=4, candidates=candidates, input_shape=(3, 9, 11), classes=4
    )


def test_the_fused_form_equals_the_reference():
    (found,) = differences(mixed_space(), MixedOp, ["fused"], torch.float64)
    assert max(found.values()) < 1e-9


@pytest.mark.skipif(not build.compiler(), reason="no compiler")
def test_the_native_form_leaves_what_it_does_not_know_to_the_fused_one():
    assert_native_equal(mixed_space(), MixedOp)
