"""What is refused before a run begins asks for what is not given already."""

from dataclasses import replace

import pytest

from archsmith.cli.preflight import _check_passes, some_architecture
from archsmith.errors import ConfigError


def too_small(*_: object, **__: object) -> None:
    raise RuntimeError("Calculated padded input size per channel: (1 x 1)")


@pytest.mark.parametrize(
    ("stem", "remedy"), [("imagenet", "set retrain.stem=small"), ("small", "give larger images")]
)
def test_c3_images_too_small_for_a_network(toy_darts, monkeypatch, stem: str, remedy: str):
    monkeypatch.setattr("archsmith.cli.preflight.final_network", too_small)
    space = replace(toy_darts, stem=stem)
    with pytest.raises(ConfigError, match=f"16x16 images are too small .*; {remedy}"):
        _check_passes(space, some_architecture(space), auxiliary=True)
