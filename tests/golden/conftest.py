"""The `golden` fixture of the parity tests."""

from collections.abc import Callable
from typing import Any

import pytest
from golden_files import FOLDERS, read


@pytest.fixture(params=list(FOLDERS))
def golden(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """`golden(name)` is that golden file, parsed, of either source; skips where that is absent."""
    folder = FOLDERS[request.param]
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; ARCHSMITH_SHARED names the folder that holds 'golden'")
    return lambda name: read(request.param, name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests take the committed excerpts; the whole files are slow ones."""
    for item in items:
        if item.path.parent.name == "golden" and "shared" in item.name:
            item.add_marker(pytest.mark.slow)
