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
