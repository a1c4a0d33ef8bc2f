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


class UnportableError(ValueError):
    """A definition cannot be copied into a file of its own; the message says which and why."""


class Definitions:
    """Top-level definitions of several modules, and the imports of torch and standard library.

    Args:
        reserved: names that the file defines itself.
    """

    def __init__(self, reserved: Iterable[str]):
        self.imports: dict[str, set[str]] = defaultdict(set)  # module -> names; "" is the module
        self.copied: dict[str, dict[int, str]] = defaultdict(dict)  # module -> line -> text
        self.needs: dict[str, set[str]] = defaultdict(set)  # module -> modules that it uses
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

    def add_import(self, module: str, attribute: str = "", alias: str | None = None) -> None:
        """Adds the import of a module, or of a name in it."""
        value = importlib.import_module(module)
        if attribute:
            value = getattr(value, attribute)
        if self._claim(alias or attribute or root(module), value, module):
            self.imports[module].add(f"{attribute} as {alias}" if alias else attribute)

    def import_lines(self) -> list[str]:
        """The import lines: standard library first, then torch, in the order of isort."""
        lines = []
        for module, names in self.imports.items():
            lines += [f"import {module}{name}" for name in names if name[:4] in ("", " as ")]
            listed = sorted((n for n in names if n[:4] not in ("", " as ")), key=_kind_and_name)
            lines += [f"from {module} import {', '.join(listed)}"] if listed else []
        lines.sort(key=lambda line: (line.startswith("from"), line.split()[1]))
        of_torch = [line for line in lines if root(line.split()[1]) == "torch"]
        return [*(line for line in lines if line not in of_torch), "", *of_torch]

    def texts(self) -> dict[str, str]:
        """The definitions of each module, after the modules that it uses."""
        try:
            order = list(TopologicalSorter(self.needs).static_order())
        except CycleError as error:
            among = ", ".join(error.args[1])
            raise UnportableError(f"modules import each other: {among}") from None
        return {
            module: "\n\n\n".join(text for _, text in sorted(self.copied[module].items()))
            for module in order
            if module in self.copied
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
                self._take(module, used)
            self._copy(module, statement, text)

    def _take_import(
        self, module: ModuleType, name: str, statement: ast.Import | ast.ImportFrom
    ) -> None:
        alias = next(a for a in statement.names if bound_name(a) == name)
        source, attribute = alias.name, ""
        if isinstance(statement, ast.ImportFrom):
            path = "." * statement.level + (statement.module or "")
            source, attribute = importlib.util.resolve_name(path, module.__package__), alias.name
        if root(source) in ALLOWED:
            self.add_import(source, attribute, alias.asname)
            return
        value, near = vars(module)[name], PROJECT | {root(module.__name__)}
        if root(source) not in near or not (attribute or isinstance(value, ModuleType)):
            raise UnportableError(
                f"{module.__name__} takes '{name}' from {source}; "
                "a stand-alone file imports torch and the standard library alone"
            )
        if isinstance(value, ModuleType):
            self._take_members(module, name, value)
            return
        self.needs[module.__name__].add(source)
        self._take(sys.modules[source], attribute)
        if attribute != name and self._claim(name, value, module.__name__):
            self._copy(module, statement, f"{name} = {attribute}")

    def _take_members(self, module: ModuleType, name: str, other: ModuleType) -> None:
        """Adds what a module reads as `name.attribute` of another one that is copied."""
        if not self._claim(name, other, module.__name__):
            return
        members = {
            node.attr
            for node in ast.walk(ast.parse(source_of(module)))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == name
        }
        for member in sorted(members):
            self._take(other, member)
        self.add_import("types", "SimpleNamespace")
        self.needs[module.__name__].add(other.__name__)
        listed = ", ".join(f"{member}={member}" for member in sorted(members))
        self._copy(module, bindings(module)[name], f"{name} = SimpleNamespace({listed})")

    def _copy(self, module: ModuleType, statement: ast.stmt, text: str) -> None:
        self.needs.setdefault(module.__name__, set())
        self.copied[module.__name__][statement.lineno] = text

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


def bound_name(alias: ast.alias) -> str:
    return alias.asname or root(alias.name)


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


def text_of(module: ModuleType, statement: ast.stmt) -> str:
    """The source of a top-level statement, with its decorators and the comment above it."""
    lines = source_of(module).splitlines()
    first = min(n.lineno for n in [statement, *getattr(statement, "decorator_list", [])]) - 1
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


def _kind_and_name(name: str) -> tuple[int, str]:
    """Sort key of isort: CONSTANTS, Classes, functions."""
    return 2 - name[:1].isupper() - name.isupper(), name
