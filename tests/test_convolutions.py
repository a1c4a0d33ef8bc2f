"""torch's convolutions, swept over sizes in processes of their own: a crash is a result.

They are right in the layout that our passes use; what is at fault on channels-last maps is of the
kind that docs/upstream/strided_1x1_convolution.md reports.
"""

import os
import sys

import convolutions
import pytest
from convolutions import Case, failing, sweep

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc checks the memory")
EXCERPT = pytest.param(211, id="excerpt")
MORE = pytest.param(5, id="more", marks=pytest.mark.exhaustive)
WHOLE = pytest.param(1, id="whole", marks=pytest.mark.exhaustive)


def reported(case: Case) -> bool:
    """A 1x1 convolution with a stride and fewer channels than 16 lanes."""
    return (case.kernel, case.groups) == (1, 1) and case.stride > 1 and case.inputs < 16


@pytest.mark.slow
@pytest.mark.parametrize("every", [EXCERPT, WHOLE])
def test_maps_with_channels_first_are_right(every: int):
    assert sweep("first", 1, every) == []


@pytest.mark.exhaustive
def test_maps_with_channels_first_are_right_whatever_the_gradient():
    assert sweep("gradient_last", 1, 5) == []


@pytest.mark.slow
def test_maps_with_channels_first_are_right_on_two_threads():
    assert sweep("first", 2, 53) == []


@pytest.mark.slow
@pytest.mark.parametrize("every", [EXCERPT, MORE])
def test_what_is_at_fault_with_channels_last_is_reported(every: int):
    assert [group for group in sweep("last", 1, every) if not any(map(reported, group))] == []


def test_a_crash_and_a_wrong_result_are_found(monkeypatch):
    def right(case: Case, layout: str) -> bool:
        return os.abort() if case.inputs == 2 else case.inputs != 5

    monkeypatch.setattr(convolutions, "right", right)
    swept = [Case(1, inputs, 1, 1, 1, 1, 1, (1, 1)) for inputs in range(1, 8)]
    assert failing(swept, "first") == [[swept[1]], [swept[4]]]
