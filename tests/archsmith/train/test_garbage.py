"""Putting off the search for cycles ends, also after an error."""

import gc
from collections.abc import Iterator

import pytest

from archsmith.train import garbage


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


@pytest.fixture
def thawed(monkeypatch) -> Iterator[None]:
    """Without what the tests themselves leave out."""
    monkeypatch.setattr(garbage, "_settled", False)
    gc.unfreeze()
    yield
    gc.freeze()


def test_what_exists_is_left_out_of_collections_and_back_in_afterwards(thawed: None):
    with garbage.settled():
        frozen = gc.get_freeze_count()
        assert frozen > 1000
        with garbage.settled():
            assert 1000 < gc.get_freeze_count() <= frozen  # what is frozen may die meanwhile
        assert 1000 < gc.get_freeze_count() <= frozen
    assert gc.get_freeze_count() == 0
