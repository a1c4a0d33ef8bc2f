"""Copies classes and functions, with all they use, out of modules that need only torch."""

import ast
import functools
import importlib.util
import inspect
import symtable
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from types import ModuleType
from typing import Any

ALLOWED = frozenset({"torch", *sys.stdlib_module_names})  # what a stand-alone file may import
PROJECT = frozenset({"search_spaces", "supernets"})
Import = tuple[str, str | None, str | None]  # module, attribute, alias


class UnportableError(ValueError):
    """A definition cannot be copied into a file of its own; the message says which and why."""


class Definitions:
    """Top-level definitions of several modules, and the imports of torch and standard library.

    Args:
        reserved: names that the file defines itself.
    """

    def __init__(self, reserved: Iterable[str]):
        self.imports: set[Import] = set()
        self.texts_of: dict[str, dict[int, str]] = defaultdict(dict)  # module -> line -> its text
        self.needs: dict[str, set[str]] = defaultdict(set)  # module -> modules that it uses
        self.members: dict[str, set[str]] = defaultdict(set)  # name of a module -> those in use
        self.meanings: dict[str, object] = dict.fromkeys(reserved, self)

    def add(self, thing: Any) -> str:
        """Adds a class or function with everything it uses, and returns its name.

        Raises:
            UnportableError: its source, or that of something it uses, is unavailable or cannot be
                copied.
        """
        name, module = getattr(thing, "__name__", ""), inspect.getmodule(thing)
        if module is not None and root(module.__name__) in ALLOWED:
            self.add_import(module.__name__, name)
        elif module is None or vars(module).get(name) is not thing:
            kind = getattr(thing, "__qualname__", f"an object of {type(thing).__qualname__}")
            raise UnportableError(f"{kind} is no class or function at the top level of a module")
        else:
            self._take(module, name)
        return name

    def add_import(self, module: str, attribute: str | None, alias: str | None = None) -> None:
        """Adds the import of a module, or of a name in it."""
        value = importlib.import_module(module)
        if attribute is not None:
            value = getattr(value, attribute)
        if self._claim(alias or attribute or root(module), value, module):
            self.imports.add((module, attribute, alias))

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

    def texts(self) -> dict[str, str]:
        """The definitions of each module, after the modules that it uses."""
        try:
            order = list(TopologicalSorter(self.needs).static_order())
        except CycleError as error:
            among = ", ".join(error.args[1])
            raise UnportableError(f"modules import each other: {among}") from None
        return {
            module: "\n\n\n".join(text for _, text in sorted(self.texts_of[module].items()))
            for module in order
            if self.texts_of[module]
        }

    def _take(self, module: ModuleType, name: str) -> None:
        """Adds what a name means in a module: a definition there, or an import."""
        statement = bindings(module).get(name)
        if statement is None:
            raise UnportableError(f"'{name}' is not defined at the top level of {module.__name__}")
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self._take_import(module, name, statement)
        elif self._claim(name, vars(module)[name], module.__name__):
            text = text_of(module, statement)
            for used in sorted(globals_of(text) & vars(module).keys()):
                other = vars(module)[used]
                if isinstance(other, ModuleType) and root(other.__name__) in near(module):
                    self._take_members(module, used, other, text)
                else:
                    self._take(module, used)
            self.needs.setdefault(module.__name__, set())
            self.texts_of[module.__name__][statement.lineno] = text

    def _take_import(
        self, module: ModuleType, name: str, statement: ast.Import | ast.ImportFrom
    ) -> None:
        alias = next(a for a in statement.names if bound_name(a) == name)
        source, attribute = alias.name, None
        if isinstance(statement, ast.ImportFrom):
            path = "." * statement.level + (statement.module or "")
            source, attribute = importlib.util.resolve_name(path, module.__package__), alias.name
        if root(source) in ALLOWED:
            self.add_import(source, attribute, alias.asname)
            return
        if root(source) not in near(module) or attribute not in vars(sys.modules[source]):
            raise UnportableError(
                f"{module.__name__} takes '{name}' from {source}; "
                "a stand-alone file imports torch and the standard library alone"
            )
        self.needs[module.__name__].add(source)
        self._take(sys.modules[source], attribute)
        if attribute != name and self._claim(name, vars(module)[name], module.__name__):
            self.texts_of[module.__name__][statement.lineno] = f"{name} = {attribute}"

    def _take_members(self, module: ModuleType, name: str, other: ModuleType, text: str) -> None:
        """Adds what a definition reads as `name.attribute` of another module that is copied."""
        self._claim(name, other, module.__name__)
        self.add_import("types", "SimpleNamespace")
        self.needs[module.__name__].add(other.__name__)
        members = self.members[name]
        members |= {
            node.attr
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == name
        }
        for member in sorted(members):
            self._take(other, member)
        line = bindings(module)[name].lineno
        listed = ", ".join(f"{member}={member}" for member in sorted(members))
        self.texts_of[module.__name__][line] = f"{name} = SimpleNamespace({listed})"

    def _claim(self, name: str, value: object, owner: str) -> bool:
        """Whether the name is new. Raises UnportableError if it already has another meaning."""
        if self.meanings.get(name, value) is not value:
            raise UnportableError(
                f"'{name}' of {owner} has the name of something else in the file; rename it"
            )
        new = name not in self.meanings
        self.meanings[name] = value
        return new


def root(module: str) -> str:
    """The top-level package of a dotted name."""
    return module.partition(".")[0]


def near(module: ModuleType) -> frozenset[str]:
    """The packages whose definitions may be copied for this module."""
    return PROJECT | {root(module.__name__)}


@functools.cache
def source_of(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        raise UnportableError(f"the source of {module.__name__} cannot be read") from None


@functools.cache
def bindings(module: ModuleType) -> dict[str, ast.stmt]:
    """The last top-level statement that binds each name of a module."""
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(source_of(module)).body:
        names: Iterable[str] = ()
        match statement:
            case ast.ClassDef() | ast.FunctionDef():
                names = [statement.name]
            case ast.Assign(targets=targets):
                names = map(ast.unparse, targets)
            case ast.AnnAssign(target=target):
                names = [ast.unparse(target)]
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names = map(bound_name, aliases)
        found |= dict.fromkeys(names, statement)
    return found


def bound_name(alias: ast.alias) -> str:
    return alias.asname or root(alias.name)


def text_of(module: ModuleType, statement: ast.stmt) -> str:
    """The source of a top-level statement, with its decorators and the comment above it."""
    lines = source_of(module).splitlines()
    decorators = getattr(statement, "decorator_list", [])
    first = min(node.lineno for node in [statement, *decorators]) - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return "\n".join(lines[first : statement.end_lineno])


def globals_of(text: str) -> set[str]:
    """The global names that a definition reads."""

    def names(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and symbol.is_global() and not symbol.is_assigned():
                yield symbol.get_name()
        for child in table.get_children():
            yield from names(child)

    return {n for n in names(symtable.symtable(text, "text", "exec")) if not n.startswith("__")}


def _isort_order(item: Import) -> tuple[bool, str, int, str]:
    """Sort key: plain imports first, then per module CONSTANTS, Classes, functions."""
    module, attribute, _ = item
    name = attribute or ""
    return attribute is not None, module, 2 - name[:1].isupper() - name.isupper(), name
