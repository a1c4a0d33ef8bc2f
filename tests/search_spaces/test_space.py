import pytest

from search_spaces.darts import CANDIDATES, darts
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space

SHAPES = dict(input_shape=(3, 32, 32), classes=10)


def make(**changes) -> Space:
    settings = dict(layers=8, nodes=4, channels=16, candidates=list(CANDIDATES)) | SHAPES
    return darts(**settings | changes)


def test_darts_has_fourteen_edges_in_node_major_order():
    edges = make().cells["normal"].edges
    assert [(e.source, e.target) for e in edges[:5]] == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert len(edges) == 14


@pytest.mark.parametrize(
    ("layers", "reductions"), [(8, [2, 5]), (20, [6, 13]), (14, [4, 9]), (3, [1, 2])]
)
def test_darts_reduces_at_one_and_two_thirds(layers: int, reductions: list[int]):
    space = make(layers=layers)
    assert [i for i, layer in enumerate(space.layers) if layer.reduction] == reductions
    assert [layer.channels for layer in space.layers][-1] == 64


def test_only_edges_from_the_inputs_of_a_reduction_cell_are_strided():
    cells = make().cells
    assert {e.source for e in cells["reduce"].edges if e.strided} == {0, 1}
    assert not any(e.strided for e in cells["normal"].edges)


def test_unshared_alphas_give_every_layer_a_group():
    assert list(make(layers=3, share_alphas=False).groups) == [
        "00_normal",
        "01_reduce",
        "02_reduce",
    ]


def test_resizing_keeps_the_rest():
    space = make(nodes=3).resize(layers=20, channels=36)
    assert (len(space.layers), space.cells["normal"].nodes, space.stem_channels) == (20, 3, 108)


def test_nasbench201_layers_and_edges():
    space = nasbench201(
        layers=17, nodes=3, channels=16, candidates=["none", "skip_connect"], **SHAPES
    )
    assert len(space.cells["cell"].edges) == 6
    assert [i for i, layer in enumerate(space.layers) if layer.cell is None] == [5, 11]
    assert [space.layers[i].channels for i in (0, 5, 6, 11, 12, 16)] == [16, 32, 32, 64, 64, 64]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(layers=2),
            r"layers: expected a whole number of at least 3 and at most 1000, found 2",
        ),
        (dict(nodes=0), r"nodes: expected a whole number of at least 1 and at most 64, found 0"),
        (dict(channels=-4), r"channels: expected .* found -4"),
        (dict(channels=2.5), r"channels: expected .* found 2\.5"),
        (dict(stem="big"), r"stem: expected one of small, imagenet, found 'big'"),
        (
            dict(candidates=["sep_conv3x3"]),
            r"candidates: unknown 'sep_conv3x3'; known: none, ",
        ),
        (dict(candidates=["none", "none"]), r"candidates: named twice"),
        (dict(candidates=[]), r"candidates"),
        (dict(candidates=[["none"]] * 3), r"candidates: 3 lists for 14 edges"),
        (dict(operations={"none": print}), r"operations: 'none' is a candidate already"),
    ],
)
def test_impossible_settings_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_nasbench201_layers_must_be_three_stages():
    with pytest.raises(ValueError, match=r"layers: 7 is not 3N \+ 2.* set it to 8 or 11"):
        nasbench201(layers=7, nodes=3, channels=16, candidates=["none"], **SHAPES)
