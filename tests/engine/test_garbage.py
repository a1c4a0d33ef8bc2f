"""Putting off the search for cycles ends, also after an error."""

import gc

import pytest

from engine import garbage


def test_the_search_for_cycles_is_off_within_and_as_before_after():
    with garbage.uncollected():
        assert not gc.isenabled()
        with garbage.uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="within"), garbage.uncollected():
        raise ValueError("within")
    assert gc.isenabled()
