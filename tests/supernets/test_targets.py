"""The native form equals the reference on every target that this machine can run."""

from collections.abc import Iterator
from functools import partial

import pytest
from equal_forms import assert_native_equal
from targets import TARGETS, runs

from search_spaces import darts, goldnas
from search_spaces.space import Space
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.native import build

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler on this machine")


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if not runs(request.param):
        pytest.skip(f"this processor cannot run {request.param}")
    monkeypatch.setenv("ARCHSMITH_MARCH", request.param)
    build.library.cache_clear()
    yield request.param
    build.library.cache_clear()


def space_of(family: str, channels: int) -> Space:
    make, candidates = {
        "darts": (darts.darts, darts.CANDIDATES),
        "goldnas": (goldnas.goldnas, goldnas.CANDIDATES),
    }[family]
    return make(
        layers=3, nodes=2, channels=channels, candidates=list(candidates),
        input_shape=(3, 9, 11), classes=4,
    )  # fmt: skip


SPACES = [  # with reductions, 6 channels are 6 to 24: less than a vector, and more
    ("darts", 6, 1),
    pytest.param("goldnas", 12, 1, marks=pytest.mark.slow),
    pytest.param("darts", 20, 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "channels", "k"), SPACES)
def test_equal_on_every_target(target: str, family: str, channels: int, k: int):
    mixed_op = partial(PartialMixedOp, k=k) if k > 1 else MixedOp
    assert_native_equal(space_of(family, channels), mixed_op)


def test_a_target_has_a_library_of_its_own(target: str, monkeypatch: pytest.MonkeyPatch):
    built = build.library()
    monkeypatch.delenv("ARCHSMITH_MARCH")
    build.library.cache_clear()
    native = build.library()
    assert built is not None
    assert native is not None
    assert built._name != native._name or target == "native"
