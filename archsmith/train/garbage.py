"""Python's search for cycles, kept from objects that all stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it no cycles are searched for: that takes a fifth of an import of torch, and a quarter
    of tracing a network.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def settled() -> Iterator[None]:
    """What exists now is left out of garbage collections within: a supernet's thousands of modules
    and tensors would be looked at again and again, in vain. Does nothing where some objects are
    left out already, by a block around this one."""
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
