import math
from dataclasses import replace

import pytest
import torch

from engine.search.diagnosis import degenerate, diagnose
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
    assert "skips and pools" in degenerate(
        space, found(space, "skip_connect", "avg_pool_3x3", "none")
    )
    assert degenerate(space, found(space, "nor_conv_3x3", "none", "skip_connect")) is None


def test_a_cell_that_is_cut_off_is_named(space: Space):
    assert "cut off" in degenerate(space, found(space, "nor_conv_3x3", "none", "none"))


def test_a_cell_that_was_connected_again_is_named_beside_a_collapse(space: Space):
    one = replace(found(space, *["skip_connect"] * 3), meta={"reconnected": ["cell"]})
    said = degenerate(space, one)
    assert "'cell' would be cut off" in said
    assert "collapse" in said
    assert "collapse" not in degenerate(space, replace(one, choices=found(
        space, "nor_conv_3x3", "none", "skip_connect").choices))  # fmt: skip
