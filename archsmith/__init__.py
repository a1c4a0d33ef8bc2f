"""Archsmith: gradient-based neural architecture search. The library's functions are `find`, a
search, and `load`, the trained network of a run."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith.library import find, load

__all__ = ["find", "load"]


def __getattr__(name: str) -> Any:
    """Imports a function on first use, so that the command line starts without torch."""
    if name in __all__:
        from archsmith import library

        return getattr(library, name)
    raise AttributeError(f"module 'archsmith' has no attribute '{name}'")
