"""Which stem of a space suits the images."""

from contextlib import suppress

from search_spaces.space import Space
from search_spaces.stems import STEMS


def fitting_stem(space: Space, *, large: bool) -> str | None:
    """A stem for large or for small images that the space has: its own, if that fits."""
    if "stem" not in space.settings:
        return None
    for stem in (space.stem, *STEMS):
        if (STEMS[stem].reduction > 1) == large:
            with suppress(ValueError):
                return space.resize(stem=stem).stem
    return None
