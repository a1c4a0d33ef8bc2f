"""Sheet ddarts.md, sections 5 and 7: deeper networks, and the distance of architectures."""

import pytest

from search_spaces.architecture import Architecture
from search_spaces.cells import CellSpace
from search_spaces.darts import darts
from search_spaces.distance import distance, hausdorff
from search_spaces.genotype import published
from search_spaces.layers import laid_out, sources

NAMES = ["max_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5"]


def space(layers: int, *, share: bool = False, nodes: int = 1) -> CellSpace:
    found = darts(
        layers=layers, nodes=nodes, channels=4, candidates=NAMES, share_alphas=share,
        input_shape=(1, 8, 8), classes=2,
    )  # fmt: skip
    assert isinstance(found, CellSpace)
    return found


def keeping(where: CellSpace, *names: str) -> Architecture:
    """An architecture whose i-th choice keeps one operation, the i-th of the names in turn."""
    return Architecture.of(
        where, {c: {"0-2": [names[i % len(names)]]} for i, c in enumerate(where.choices)}
    )


TABLE = {
    8: [0, 1, 2, 3, 4, 5, 6, 7],
    14: [0, 1, 0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 6, 7],
    20: [0, 1] * 3 + [2] + [3, 4] * 3 + [5] + [6, 7] * 3,
    30: [0, 1] * 5 + [2] + [3, 4, 3, 4, 3, 4, 3, 4, 3] + [5] + [6, 7, 6, 7, 6, 7, 6, 7, 6],
}


@pytest.mark.parametrize("layers", TABLE)
def test_ddarts_5_each_layer_repeats_a_cell_of_its_kind_and_every_cell_is_used(layers: int):
    found, wanted = space(8).layers, space(layers).layers
    cells = sources(found, wanted)
    assert cells == TABLE[layers]
    for cell, layer in zip(cells, wanted, strict=True):
        assert found[cell].reduction == layer.reduction
    assert set(cells) == set(range(8))


def test_ddarts_5_an_architecture_is_repeated_on_more_layers():
    found = laid_out(keeping(space(5), *NAMES, "max_pool_3x3"), space(8))
    kept = [found.choices[layer.group]["0-2"][0] for layer in space(8).layers]
    pool, skip, conv3, conv5 = NAMES
    assert kept == [pool, pool, skip, conv3, conv3, conv5, pool, pool]


def test_fewer_layers_than_cells_are_refused():
    with pytest.raises(ValueError, match=r"layers: found 7, but each of the 8 layers"):
        sources(space(8).layers, space(7).layers)


def test_a_section_without_a_cell_cannot_grow():
    with pytest.raises(ValueError, match=r"no normal cell after reduction 1, which 8 layers need"):
        sources(space(4).layers, space(8).layers)


def test_a_shared_cell_goes_to_all_layers_of_its_kind():
    shared = Architecture.of(
        space(20, share=True), {"normal": {"0-2": ["skip_connect"]}, "reduce": {"1-2": [NAMES[0]]}}
    )
    found = laid_out(shared, space(3))
    assert found.choices == {
        "00_normal": {"0-2": ("skip_connect",)},
        "01_reduce": {"1-2": ("max_pool_3x3",)},
        "02_reduce": {"1-2": ("max_pool_3x3",)},
    }


def test_different_cells_have_no_place_where_layers_share_one():
    with pytest.raises(ValueError, match=r"share the choice 'reduce' have different cells"):
        laid_out(keeping(space(3), *NAMES), space(3, share=True))


def test_a_published_architecture_is_laid_out_on_any_layers():
    source = Architecture.load(published("DARTS_V2"))
    where = darts(**{
        **{k: v for k, v in source.space.items() if k != "name"}, "layers": 8, "share_alphas": False
    })  # fmt: skip
    found = laid_out(source, where)
    assert found.choices["00_normal"] == source.choices["normal"]
    assert found.choices["05_reduce"] == source.choices["reduce"]


def test_another_family_or_other_nodes_are_refused():
    with pytest.raises(ValueError, match=r"unknown option 'dil_conv_3x3'|has no row"):
        laid_out(Architecture.load(published("DARTS_V2")), space(8))


ONE = dict.fromkeys(NAMES, 1.0)


def edges(*kept: str) -> set[frozenset[str]]:
    return {frozenset([name]) for name in kept}


def test_ddarts_6_equal_architectures_have_distance_zero():
    where = space(5)
    a = keeping(where, *NAMES)
    assert distance(a, a, where) == 0


def test_ddarts_6_one_edge_with_another_operation_is_as_far_as_its_hamming_distance():
    weights = {"max_pool_3x3": 1.0, "skip_connect": 2.0, "sep_conv_3x3": 3.0, "sep_conv_5x5": 4.0}
    a, b = edges("skip_connect", "max_pool_3x3"), edges("sep_conv_3x3", "max_pool_3x3")
    assert hausdorff(a, b, weights) == pytest.approx((1 + 3) / 10)  # from conv to the nearer pool
    assert hausdorff(edges("skip_connect"), edges("sep_conv_3x3"), weights) == 0.5
    where = space(5)
    same = {c: {"0-2": ["skip_connect"]} for c in where.choices}
    other = Architecture.of(where, same | {"04_normal": {"0-2": ["sep_conv_3x3"]}})
    found = distance(Architecture.of(where, same), other, where, weights)
    assert found == pytest.approx(0.5 / 5)  # a cell of five


def test_ddarts_6_the_distance_is_symmetric_and_takes_the_larger_direction():
    a, b = edges("skip_connect"), edges("skip_connect", "sep_conv_3x3")
    assert hausdorff(a, b, ONE) == hausdorff(b, a, ONE) == 2 / 4


def test_ddarts_6_the_triangle_inequality_holds():
    cells = [edges(*NAMES[i:j]) for i in range(4) for j in range(i + 1, 5)]
    for a in cells:
        for b in cells:
            for c in cells:
                assert hausdorff(a, c, ONE) <= hausdorff(a, b, ONE) + hausdorff(b, c, ONE) + 1e-9


def test_an_edge_that_keeps_two_operations_and_an_empty_cell():
    both = {frozenset(["skip_connect", "sep_conv_3x3"])}
    assert hausdorff(both, edges("skip_connect"), ONE) == 1 / 4
    where = space(3)
    nothing = Architecture.of(where, {c: {} for c in where.choices})
    assert distance(nothing, keeping(where, "skip_connect"), where) == pytest.approx(1 / 4)
