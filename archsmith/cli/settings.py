"""Finds settings of the wrong type by comparing them with the defaults they replace."""

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import torch

from archsmith.cli.command_line import program
from archsmith.numbers import is_number

Made = TypeVar("Made")

# Any other annotation (`object`, a protocol, a literal) may also admit null and lists.
CLOSED = {int, float, str, bool, type(None), list, tuple, dict, Sequence, Mapping, torch.Tensor}


def check_types(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ValueError for the first setting whose type cannot be right.

    A default of null admits any type, and true and false may replace a word (`auto`). Whether null,
    or a list instead of a number, is allowed follows from the type annotations of the default's
    `_target_`; without annotations both are passed on unchecked.
    """
    for key, value, default, kinds in _pairs(found, defaults, ""):
        expected = _expected(value, default, kinds)
        if expected:
            given = "null" if value is None else repr(value)
            raise ValueError(f"{key}: expected {expected} (as {default!r}), found {given}")


def settings(taker: Callable[..., Made], group: str, given: Mapping[str, Any]) -> Made:
    """Calls `taker` with a group's settings.

    Raises ValueError for a setting that it does not accept, with the closest one that it does.
    """
    known = list(inspect.signature(taker).parameters)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            meant = f", did you mean '{group}.{near[0]}'?" if near else ""
            raise ValueError(f"unknown setting '{group}.{name}'{meant}; known: {', '.join(known)}")
    return taker(**given)


def check_groups(found: Mapping[str, Any], groups: Iterable[str]) -> None:
    """Raises ValueError if a group (`strategy/pruning`) holds neither settings nor null, as happens
    when a choice is written with dots."""
    for group in groups:
        value: Any = found
        for name in group.split("/"):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(
                f"{group.replace('/', '.')}: expected settings in {{}} or null, found {value!r}; "
                f"a choice is written {group}=..., {program()} task=list shows them"
            )


def _pairs(found: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> Iterator[Any]:
    hints = _annotations(defaults.get("_target_"))
    for name in found.keys() & defaults.keys():
        key, value, default = f"{prefix}{name}", found[name], defaults[name]
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            yield from _pairs(value, default, f"{key}.")
        else:
            yield key, value, default, _kinds(hints.get(name))


def _annotations(target: Any) -> dict[str, Any]:
    """Parameter -> annotation, for the class or function of this dotted name; {} if unknown."""
    if not isinstance(target, str):
        return {}
    module, _, name = target.rpartition(".")
    try:
        taken = getattr(import_module(module), name)
        parameters = inspect.signature(taken, eval_str=True).parameters
    except Exception:  # third-party code may raise anything; instantiation reports it
        return {}
    return {name: one.annotation for name, one in parameters.items()}


def _kinds(hint: Any) -> set[Any] | None:
    """The types that a parameter admits, without type arguments; None if it admits anything."""
    if hint in (None, Any, inspect.Parameter.empty):
        return None
    alternatives = typing.get_args(hint) if _is_union(hint) else (hint,)
    kinds = {typing.get_origin(one) or one for one in alternatives}
    return kinds if all(kind in CLOSED for kind in kinds) else None


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, type(int | None))


def _expected(value: Any, default: Any, kinds: set[Any] | None) -> str | None:
    """A description of the expected type, or None if the value is acceptable."""
    if isinstance(default, Mapping):
        return "settings in {}"
    if default is None or (value is None and (kinds is None or type(None) in kinds)):
        return None
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        if isinstance(value, list) and (kinds is None or kinds & {Sequence, list, tuple}):
            return None
        return None if is_number(value) else "a finite number"
    if isinstance(default, list):
        return _expected_list(value, default)
    return None if isinstance(value, str | bool) else "a word"


def _expected_list(value: Any, default: list[Any]) -> str | None:
    if not isinstance(value, list):
        return "a list in []"
    if default and all(map(is_number, default)):
        fits = len(value) == len(default) and all(map(is_number, value))
        return None if fits else f"a list of {len(default)} finite numbers"
    return None
