"""`tests/mutants.toml` names modules and tests that exist."""

import tomllib

from helpers import ROOT


def test_every_module_and_test_that_is_named_is_there():
    watched = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())["watched"]
    for module, tests in watched.items():
        assert (ROOT / module).is_file(), module
        for test in tests:
            path, _, name = test.partition("::")
            assert (ROOT / path).is_file(), test
            assert not name or f"def {name}(" in (ROOT / path).read_text(), test
