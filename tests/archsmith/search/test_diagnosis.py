import math
from dataclasses import replace

import pytest
import torch

from archsmith.search.diagnosis import degenerate, diagnose, undecided
from search_spaces.architecture import Architecture
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space

NAMES = ["none", "skip_connect", "nor_conv_3x3", "avg_pool_3x3"]


@pytest.fixture
def space() -> Space:
    return nasbench201(
        layers=5, nodes=2, channels=4, candidates=NAMES, input_shape=(3, 8, 8), classes=3
    )


def found(space: Space, *names: str) -> Architecture:
    edges = [edge.name for edge in space.cells["cell"].edges]
    return Architecture.of(space, {"cell": {e: [n] for e, n in zip(edges, names, strict=True)}})


def test_entropy_margin_and_counts_by_hand(space: Space):
    gates = torch.tensor([[0.25] * 4, [0.0, 1.0, 0.0, 0.0], [0.4, 0.3, 0.3, 0.0]])
    alive = torch.tensor([[True] * 4, [True] * 4, [True, True, True, False]])
    measures = diagnose(
        space,
        {"cell": gates},
        {"cell": alive},
        found(space, "avg_pool_3x3", "skip_connect", "nor_conv_3x3"),
    )
    third = -(0.4 * math.log(0.4) + 0.6 * math.log(0.3)) / math.log(3)
    assert measures["gate_entropy"] == pytest.approx((1.0 + 0.0 + third) / 3)
    assert measures["gate_margin"] == pytest.approx((0.0 + 1.0 + 0.1) / 3)
    assert (measures["skips"], measures["pools"], measures["nones"]) == (1, 1, 2)


def test_all_skips_are_named_a_collapse(space: Space):
    assert "collapse" in degenerate(space, found(space, *["skip_connect"] * 3))
    assert "(skip connections and pools)" in degenerate(
        space, found(space, "skip_connect", "avg_pool_3x3", "none")
    )
    assert degenerate(space, found(space, "nor_conv_3x3", "none", "skip_connect")) is None


def test_a_cell_that_is_cut_off_is_named(space: Space):
    assert "cut off" in degenerate(space, found(space, "nor_conv_3x3", "none", "none"))


@pytest.mark.parametrize("candidate", ["noise", "sep_conv_3x3"])
def test_a_cell_of_noise_is_cut_off_and_a_collapse(toy_darts: Space, candidate: str):
    space = toy_darts.resize(candidates=["noise", "sep_conv_3x3"])
    kept = {"0-2": (candidate,), "1-2": ("noise",), "0-3": ("noise",), "2-3": ("noise",)}
    found = Architecture.of(space, {"normal": kept, "reduce": kept})
    said = degenerate(space, found)
    if candidate == "noise":
        assert "'normal' is cut off" in said
        assert "parameter-free (noise)" in said
    else:
        assert said is None


def test_a6_a_normal_cell_of_poolings_is_a_collapse_whatever_the_reduction_cell(toy_darts: Space):
    def cells(normal: str, reduce: str) -> Architecture:
        kept = {"0-2": (normal,), "1-2": (normal,), "0-3": (normal,), "1-3": (normal,)}
        return Architecture.of(
            toy_darts, {"normal": kept, "reduce": dict.fromkeys(kept, (reduce,))}
        )

    assert "collapse" in degenerate(toy_darts, cells("max_pool_3x3", "sep_conv_3x3"))
    assert degenerate(toy_darts, cells("sep_conv_3x3", "max_pool_3x3")) is None


def test_a6_gates_that_hardly_moved_are_said_to_be_undecided(space: Space):
    alive = {"cell": torch.ones(3, 4, dtype=torch.bool)}
    one = found(space, "nor_conv_3x3", "avg_pool_3x3", "skip_connect")
    assert "close to a draw" in undecided(space, alive, one, 0.996)
    assert undecided(space, alive, one, 0.9) is None
    assert "have not moved" in undecided(space, alive, one, 0.99995)


def test_a6_where_pruning_left_one_candidate_the_gates_decide_nothing(space: Space):
    one = found(space, "nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3")
    alive = {"cell": torch.tensor([[True, False, True, False]] * 3)}
    assert undecided(space, alive, one, 1.0) is None


def test_a_cell_that_was_connected_again_is_named_beside_a_collapse(space: Space):
    one = replace(found(space, *["skip_connect"] * 3), meta={"reconnected": ["cell"]})
    said = degenerate(space, one)
    assert "'cell' would be cut off" in said
    assert "collapse" in said
    assert "collapse" not in degenerate(space, replace(one, choices=found(
        space, "nor_conv_3x3", "none", "skip_connect").choices))  # fmt: skip
