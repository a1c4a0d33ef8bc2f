"""The definitions and imports that a stand-alone copy of some classes and functions needs."""

import ast
import functools
import importlib.util
import inspect
import sys
import symtable
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from engine.specialise import Specialiser

ALLOWED = frozenset({"torch", *sys.stdlib_module_names})  # what a stand-alone file may import
PROJECT = frozenset({"search_spaces", "supernets"})
FILLED = ("affine", "search")  # say what an op is built for; the same all over a final network
PLAIN = (bool, int, float, str)


class UnportableError(ValueError):
    """A definition cannot be copied into a file of its own; says which and why."""


def calls_during(run: Callable[[], object]) -> dict[CodeType, list[dict[str, Any]]]:
    """The plain arguments of every call of a Python function, torch's own left out, while `run` runs."""
    calls: dict[CodeType, list[dict[str, Any]]] = defaultdict(list)

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and _root(frame.f_globals.get("__name__", "")) not in ALLOWED:
            code, values = frame.f_code, frame.f_locals
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            calls[code].append({n: values[n] for n in names if isinstance(values.get(n), PLAIN)})

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return calls


class Sources:
    """Collects definitions, each after those it uses, and imports of torch and the standard library.

    Args:
        calls: what `calls_during` saw; our own definitions are cut down to it.
        reserved: names that the file defines by itself.
    """

    def __init__(self, calls: dict[CodeType, list[dict[str, Any]]], reserved: Sequence[str]):
        self.calls = calls
        self.definitions: dict[str, str] = {}
        self.imports: set[tuple[str, str | None, str | None]] = set()  # module, attribute, alias
        self.objects: dict[str, object] = {name: Sources for name in reserved}
        self.verbatim: set[str] = set()

    def add(self, thing: Any, *, verbatim: bool = False) -> str:
        """Takes up a class or function with all it uses; returns its name. `verbatim`: as it stands.

        Raises:
            UnportableError: its source, or that of something it uses, cannot be had or copied.
        """
        name, module = getattr(thing, "__name__", ""), sys.modules.get(getattr(thing, "__module__", ""))
        if module is None or vars(module).get(name) is not thing:
            raise UnportableError(f"{thing!r} is not a class or function at the top level of a module")
        self._need(module, name, verbatim)
        return name

    def filled(self, thing: Any) -> dict[str, Any]:
        """The parameters of one of our definitions that had one value in every call, and that value."""
        function = _function(thing)
        if function is None or thing.__name__ in self.verbatim or _root(thing.__module__) not in PROJECT:
            return {}
        code, found = function.__code__, {}
        keyword_only = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
        for name in FILLED:
            values = {call.get(name) for call in self.calls.get(code, [])}
            if name in keyword_only and len(values) == 1:
                found[name] = values.pop()
        return found

    def import_lines(self) -> list[str]:
        """Standard library first, then torch, in the order that isort gives them."""
        merged: dict[str, list[str]] = defaultdict(list)
        plain = []
        for module, attribute, alias in sorted(self.imports, key=_isort_order):
            renamed = f" as {alias}" if alias else ""
            if attribute is None:
                plain.append((module, f"import {module}{renamed}"))
            else:
                merged[module].append(attribute + renamed)
        lines = plain + [(m, f"from {m} import {', '.join(names)}") for m, names in merged.items()]
        blocks = [[line for m, line in lines if (_root(m) == "torch") is torch] for torch in (False, True)]
        return [*blocks[0], "", *blocks[1]]

    def _need(self, module: ModuleType, name: str, verbatim: bool) -> None:
        """Takes up what `name` means in a module: a definition there, or an import."""
        value = vars(module)[name]
        if self.objects.get(name, value) is not value:
            raise UnportableError(f"'{name}' of {module.__name__} is another thing in the same file; rename it")
        statement = _binding(module, name)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self._need_import(module, name, statement, verbatim)
        elif name not in self.objects:
            self.objects[name] = value
            self.verbatim |= {name} if verbatim else set()
            text = self._text(module, statement, value)
            for used in sorted(_globals_of(text) - {name}):
                if used in vars(module):
                    self._need(module, used, verbatim)
            self.definitions[name] = text

    def _need_import(
        self, module: ModuleType, name: str, statement: ast.Import | ast.ImportFrom, verbatim: bool
    ) -> None:
        alias = next(a for a in statement.names if _bound_name(a) == name)
        if isinstance(statement, ast.Import):
            source, attribute = alias.name, None
        else:
            path = "." * statement.level + (statement.module or "")
            source = importlib.util.resolve_name(path, module.__package__)
            attribute = alias.name
        if _root(source) in ALLOWED:
            if name not in self.objects:
                self.imports.add((source, attribute, alias.asname))
            self.objects[name] = vars(module)[name]
        elif attribute not in vars(sys.modules[source]) or _root(source) not in (
            PROJECT | {_root(module.__name__)}
        ):
            raise UnportableError(
                f"{module.__name__} imports '{name}' from {source}; a stand-alone file may import nothing "
                "but torch and the standard library"
            )
        else:
            self._need(sys.modules[source], attribute, verbatim)
            if attribute != name:
                self.definitions[name] = f"{name} = {attribute}"

    def _text(self, module: ModuleType, statement: ast.stmt, value: Any) -> str:
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
        lines = _source(module).splitlines()[first - 1 : statement.end_lineno]
        text = "\n".join(lines)
        function = _function(value)
        if _root(module.__name__) not in PROJECT or value.__name__ in self.verbatim or function is None:
            return text
        calls = self.calls.get(function.__code__, [])
        return Specialiser(text, calls, self.filled(value), self._redundant(module)).text()

    def _redundant(self, module: ModuleType) -> Callable[[ast.expr, str, Any], bool]:
        """Whether a call written in `module` can do without a keyword: filled in, or given its default."""

        def redundant(callee: ast.expr, keyword: str, value: Any) -> bool:
            try:
                thing = functools.reduce(getattr, _dotted(callee)[1:], vars(module)[_dotted(callee)[0]])
                default = inspect.signature(thing).parameters[keyword].default
            except (LookupError, AttributeError, TypeError, ValueError):
                return False
            return keyword in self.filled(thing) or (value is not ... and value is default)

        return redundant


def _root(module: str) -> str:
    return module.partition(".")[0]


def _function(thing: Any) -> FunctionType | None:
    """What runs when it is called: a class's own `__init__`, or the function itself."""
    function = vars(thing).get("__init__") if isinstance(thing, type) else thing
    return function if isinstance(function, FunctionType) else None


def _bound_name(alias: ast.alias) -> str:
    return alias.asname or _root(alias.name)


def _dotted(expression: ast.expr) -> list[str]:
    """`nn.Conv2d` as ["nn", "Conv2d"]; empty for anything but names and dots."""
    text = ast.unparse(expression)
    return text.split(".") if text.replace(".", "").isidentifier() else []


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        raise UnportableError(f"the source of module {module.__name__} cannot be read") from None


def _binding(module: ModuleType, name: str) -> ast.stmt:
    """The last top-level statement of a module that gives the name its meaning."""
    for statement in reversed(ast.parse(_source(module)).body):
        match statement:
            case ast.ClassDef() | ast.FunctionDef():
                names = [statement.name]
            case ast.Assign():
                names = [ast.unparse(target) for target in statement.targets]
            case ast.AnnAssign():
                names = [ast.unparse(statement.target)]
            case ast.Import() | ast.ImportFrom():
                names = [_bound_name(alias) for alias in statement.names]
            case _:
                continue
        if name in names:
            return statement
    raise UnportableError(f"'{name}' is not defined at the top level of {module.__name__}")


def _globals_of(text: str) -> set[str]:
    """The names a definition reads from outside itself."""

    def names(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and symbol.is_global() and not symbol.is_assigned():
                yield symbol.get_name()
        for child in table.get_children():
            yield from names(child)

    return set(names(symtable.symtable(text, "definition", "exec")))


def _isort_order(item: tuple[str, str | None, str | None]) -> tuple[str, int, str]:
    """By module, then CONSTANTS, Classes, functions."""
    module, attribute, _ = item
    name = attribute or ""
    return module, 0 if name.isupper() else 1 if name[:1].isupper() else 2, name
