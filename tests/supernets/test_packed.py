"""The fused form for a GPU equals the reference in float64: outputs, every gradient, every buffer."""

from functools import partial

import pytest
import torch
from equal_forms import (
    CPU,
    FAMILIES,
    TOLERANCE,
    Choose,
    differences,
    drawn,
    everything,
    mixture_of,
    pruned,
    space_of,
)
from torch import nn

from search_spaces import darts
from supernets import forms
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.network import CellModule, supernet
from supernets.packed import PackedCell


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """The form is chosen as on a GPU."""
    monkeypatch.setattr(forms, "launches", lambda device: True)


def assert_equal(space, mixed_op, **how) -> None:
    (found,) = differences(space, mixed_op, ["fused"], torch.float64, **how)
    assert {name: value for name, value in found.items() if not value < TOLERANCE} == {}


@pytest.mark.parametrize("candidate", [name for name in darts.CANDIDATES if name != "none"])
@pytest.mark.parametrize("k", [1, 2])
def test_each_candidate_of_darts(candidate: str, k: int):
    assert_equal(space_of("darts", 6, [candidate]), partial(PartialMixedOp, k=k))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choose", [everything, pruned, drawn])
@pytest.mark.parametrize("training", [True, False])
def test_each_family(family: str, choose: Choose, training: bool):
    assert_equal(space_of(family, 5), MixedOp, choose=choose, training=training)


@pytest.mark.parametrize("training", [True, False])
def test_norms_with_scale_and_shift(training: bool):
    assert_equal(space_of("darts", 5), MixedOp, affine=True, choose=pruned, training=training)


@pytest.mark.parametrize("choose", [everything, pruned])
@pytest.mark.parametrize("factors", [True, False])
def test_partial_channels(choose: Choose, factors: bool):
    mixed_op = partial(PartialMixedOp, k=4)
    assert_equal(space_of("darts", 8), mixed_op, choose=choose, factors=factors)
