"""Reads the source of modules: where a name is defined, and which names a definition uses."""

import ast
import inspect
import symtable
from collections.abc import Collection, Iterable, Iterator
from types import ModuleType


class UnportableError(ValueError):
    """A definition cannot be copied into a file of its own; the message says which and why."""


def root(module: str) -> str:
    """The top-level package of a dotted name."""
    return module.partition(".")[0]


def source_of(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        raise UnportableError(f"the source of {module.__name__} cannot be read") from None


def text_of(module: ModuleType, statement: ast.stmt) -> str:
    """The source of a top-level statement of the module, with its decorators."""
    decorators = getattr(statement, "decorator_list", [])
    first = min(node.lineno for node in [statement, *decorators])
    return "\n".join(source_of(module).splitlines()[first - 1 : statement.end_lineno])


def bound_name(alias: ast.alias) -> str:
    return alias.asname or root(alias.name)


def binding(module: ModuleType, name: str) -> ast.stmt:
    """The last top-level statement of a module that binds the name."""
    for statement in reversed(ast.parse(source_of(module)).body):
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
        if name in names:
            return statement
    raise UnportableError(f"'{name}' is not defined at the top level of {module.__name__}")


def globals_of(text: str) -> set[str]:
    """The global names that a definition reads."""

    def names(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and symbol.is_global() and not symbol.is_assigned():
                yield symbol.get_name()
        for child in table.get_children():
            yield from names(child)

    return {n for n in names(symtable.symtable(text, "text", "exec")) if not n.startswith("__")}


def unqualified(
    text: str, module: ModuleType, packages: Collection[str]
) -> tuple[str, dict[str, ModuleType]]:
    """The text with `ops.Conv` shortened to `Conv`, and the module of each shortened name.

    Args:
        packages: the top-level packages whose module prefixes are removed.
    """
    lines, owners = [line.encode() for line in text.split("\n")], {}
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        owner = vars(module).get(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(owner, ModuleType) and root(owner.__name__) in packages:
            if node.attr in vars(module):
                raise UnportableError(f"{module.__name__} uses a '{node.attr}' beside its own")
            owners[node.attr] = owner
            line = lines[node.lineno - 1]
            after = (node.end_col_offset or 0) - len(node.attr.encode())
            lines[node.lineno - 1] = line[: node.col_offset] + line[after:]
    return b"\n".join(lines).decode(), owners
