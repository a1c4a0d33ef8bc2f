"""Archsmith: gradient-based neural architecture search. `find` is the library's one function."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith.library import find

__all__ = ["find"]


def __getattr__(name: str) -> Any:
    """Imports `find` on first use, so that the command line starts without torch."""
    if name == "find":
        from archsmith.library import find

        return find
    raise AttributeError(f"module 'archsmith' has no attribute '{name}'")
