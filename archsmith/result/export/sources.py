"""The definitions and imports that a stand-alone copy of some classes and functions needs."""

import ast
import functools
import importlib.util
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from archsmith.result.export.module_source import (
    UnportableError,
    binding,
    bound_name,
    globals_of,
    root,
    text_of,
    unqualified,
)
from archsmith.result.export.specialise import Specialiser

ALLOWED = frozenset({"torch", *sys.stdlib_module_names})  # what a stand-alone file may import
PROJECT = frozenset({"search_spaces", "supernets"})
FILLED = ("affine", "search")  # constructor arguments that are equal in a whole final network
PLAIN = (bool, int, float, str)

Calls = Mapping[CodeType, Sequence[Mapping[str, Any]]]


def calls_during(run: Callable[[], object]) -> Calls:
    """The plain arguments of every call of a Python function during `run`, except torch's
    functions.

    It runs in a separate thread, whose profile hook is free.
    """
    calls: dict[CodeType, list[dict[str, Any]]] = defaultdict(list)

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and root(frame.f_globals.get("__name__", "")) not in ALLOWED:
            code, values = frame.f_code, frame.f_locals
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            calls[code].append({n: values[n] for n in names if isinstance(values.get(n), PLAIN)})

    with ThreadPoolExecutor(1, initializer=sys.setprofile, initargs=(note,)) as thread:
        thread.submit(run).result()
    return calls


class Sources:
    """Collects definitions, each after those it uses, and the imports of torch and standard
    library.

    Our own definitions are specialised to the recorded calls; others are copied verbatim.

    Args:
        reserved: names that the file defines itself.
    """

    def __init__(self, calls: Calls, reserved: Iterable[str]):
        self.calls = calls
        self.definitions: dict[str, str] = {}
        self.imports: set[tuple[str, str | None, str | None]] = set()  # module, attribute, alias
        self.meanings: dict[str, object] = dict.fromkeys(reserved, self)
        self.whole: set[str] = set()  # not to be specialised

    def add(self, thing: Any, *, whole: bool = False) -> str:
        """Adds a class or function with everything it uses, and returns its name.

        Args:
            whole: copy it and what it uses verbatim.

        Raises:
            UnportableError: its source, or that of something it uses, is unavailable or cannot be
                copied.
        """
        name, module = getattr(thing, "__name__", ""), inspect.getmodule(thing)
        if module is not None and root(module.__name__) in ALLOWED:
            self.add_import(module.__name__, name)
            return name
        if module is None or vars(module).get(name) is not thing:
            kind = getattr(thing, "__qualname__", f"an object of {type(thing).__qualname__}")
            raise UnportableError(f"{kind} is no class or function at the top level of a module")
        self._take(module, name, whole)
        return name

    def add_import(self, module: str, attribute: str | None, alias: str | None = None) -> None:
        """Adds the import of a module, or of a name in it."""
        value = importlib.import_module(module)
        if attribute is not None:
            value = getattr(value, attribute)
        if self._claim(alias or attribute or root(module), value, module):
            self.imports.add((module, attribute, alias))

    def filled(self, thing: Any) -> dict[str, Any]:
        """Parameters of one of our definitions with a single value in all calls, and that value."""
        function = _function(thing)
        if function is None or not self._cut_down(thing):
            return {}
        code, found = function.__code__, {}
        if code.co_posonlyargcount or code.co_flags & inspect.CO_VARARGS:
            return {}  # signatures that the specialiser does not support
        keyword_only = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
        for name in FILLED:
            values = {call.get(name, ...) for call in self.calls.get(code, [])}
            if name in keyword_only and len(values) == 1 and ... not in values:
                found[name] = values.pop()
        return found

    def import_lines(self) -> list[str]:
        """The import lines: standard library first, then torch, in the order of isort."""
        lines = {}
        for module, attribute, alias in sorted(self.imports, key=_isort_order):
            name = f"{attribute or module} as {alias}" if alias else attribute or module
            if attribute is None:
                lines[name] = f"import {name}"
            elif f"from {module}" in lines:
                lines[f"from {module}"] += f", {name}"
            else:
                lines[f"from {module}"] = f"from {module} import {name}"
        of_torch = [line for line in lines.values() if root(line.split()[1]) == "torch"]
        return [*(line for line in lines.values() if line not in of_torch), "", *of_torch]

    def _cut_down(self, thing: Any) -> bool:
        return root(thing.__module__) in PROJECT and thing.__name__ not in self.whole

    def _claim(self, name: str, value: object, owner: str) -> bool:
        """Whether the name is new. Raises UnportableError if it already has another meaning."""
        if self.meanings.get(name, value) is not value:
            raise UnportableError(
                f"'{name}' of {owner} has the name of something else in the file; rename it"
            )
        new = name not in self.meanings
        self.meanings[name] = value
        return new

    def _take(self, module: ModuleType, name: str, whole: bool) -> None:
        """Adds what `name` means in a module: a definition there, or an import."""
        statement = binding(module, name)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self._take_import(module, name, statement, whole)
            return
        value = vars(module)[name]
        if not self._claim(name, value, module.__name__):
            return
        if whole:
            self.whole.add(name)
        packages = PROJECT | {root(module.__name__)}
        text, owners = unqualified(text_of(module, statement), module, packages)
        function = _function(value)
        if function is not None and self._cut_down(value):
            redundant = self._redundant(vars(module) | {n: vars(m)[n] for n, m in owners.items()})
            calls = self.calls.get(function.__code__, [])
            text = Specialiser(text, calls, self.filled(value), redundant).text()
        for used in sorted(globals_of(text)):
            if used in owners or used in vars(module):
                self._take(owners.get(used, module), used, whole)
        self.definitions[name] = text

    def _take_import(
        self, module: ModuleType, name: str, statement: ast.Import | ast.ImportFrom, whole: bool
    ) -> None:
        alias = next(a for a in statement.names if bound_name(a) == name)
        source, attribute = alias.name, None
        if isinstance(statement, ast.ImportFrom):
            path = "." * statement.level + (statement.module or "")
            source, attribute = importlib.util.resolve_name(path, module.__package__), alias.name
        if root(source) in ALLOWED:
            self.add_import(source, attribute, alias.asname)
            return
        near = PROJECT | {root(module.__name__)}
        if root(source) not in near or attribute not in vars(sys.modules[source]):
            raise UnportableError(
                f"{module.__name__} takes '{name}' from {source}; "
                "a stand-alone file imports torch and the standard library alone"
            )
        self._take(sys.modules[source], attribute, whole)
        if attribute != name and self._claim(name, vars(module)[name], module.__name__):
            self.definitions[name] = f"{name} = {attribute}"

    def _redundant(self, names: Mapping[str, Any]) -> Callable[[ast.expr, str, Any], bool]:
        """A test of whether a call can omit a keyword, as it is filled in or equals the default."""

        def redundant(callee: ast.expr, keyword: str, value: Any) -> bool:
            first, *rest = ast.unparse(callee).split(".")
            try:
                thing = functools.reduce(getattr, rest, names[first])
                default = inspect.signature(thing).parameters[keyword].default
            except (LookupError, AttributeError, TypeError, ValueError):
                return False  # such as `super().__init__`
            return keyword in self.filled(thing) or value is default

        return redundant


def _function(thing: Any) -> FunctionType | None:
    """The function that runs on a call: a class's own `__init__`, or the function itself."""
    function = vars(thing).get("__init__") if isinstance(thing, type) else thing
    return function if isinstance(function, FunctionType) else None


def _isort_order(item: tuple[str, str | None, str | None]) -> tuple[bool, str, int, str]:
    """Sort key: plain imports first, then per module CONSTANTS, Classes, functions."""
    module, attribute, _ = item
    name = attribute or ""
    return attribute is not None, module, 2 - name[:1].isupper() - name.isupper(), name
