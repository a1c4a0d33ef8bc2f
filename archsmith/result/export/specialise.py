"""Specialises the source of a class or function to the calls that were recorded.

Works on the text, so that the remaining code keeps its layout and comments. Only used on our own
source.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Call = Mapping[str, Any]  # argument name -> value, plain values only
WIDTH = 100


@dataclass(frozen=True)
class Edit:
    """Replaces bytes `start` to `end` of the source by `text`."""

    start: int
    end: int
    text: bytes = b""


class Specialiser:
    """The source of one definition, specialised to the recorded calls.

    Args:
        calls: the plain arguments of every call; branches that no call takes are removed.
        filled: parameters with the same value in all calls; they are removed from the signature.
        redundant: `(callee, keyword, known value or ...)` -> whether the call can omit the keyword.
    """

    def __init__(
        self,
        source: str,
        calls: Sequence[Call],
        filled: Call,
        redundant: Callable[[ast.expr, str, Any], bool],
    ):
        self.source, self.filled, self.redundant = source.encode(), filled, redundant
        self.lines = [0, *accumulate(map(len, self.source.splitlines(keepends=True)))]
        definition = ast.parse(source).body[0]
        functions = definition.body if isinstance(definition, ast.ClassDef) else [definition]
        self.function = next(
            (
                f
                for f in functions
                if isinstance(f, ast.FunctionDef) and (f is definition or f.name == "__init__")
            ),
            None,
        )
        changed = {n.id for n in ast.walk(definition) if isinstance(n, ast.Name) and _stored(n)}
        self.calls = [{k: v for k, v in call.items() if k not in changed} for call in calls]

    def text(self) -> str:
        """The specialised definition; other methods are unchanged."""
        edits = [] if self.function is None else list(self._function(self.function))
        return self._applied(0, len(self.source), edits).decode()

    def _function(self, node: ast.FunctionDef) -> Iterator[Edit]:
        if self.filled:
            yield Edit(self._start(node), self._start(node.body[0]), self._header(node).encode())
        yield from self._block(node.body)

    def _header(self, node: ast.FunctionDef) -> str:
        indent = " " * node.col_offset
        parameters = ", ".join(self._parameters(node.args))
        end = f") -> {ast.unparse(node.returns)}:" if node.returns else "):"
        line = f"def {node.name}({parameters}{end}"
        if len(indent + line) > WIDTH:
            line = f"def {node.name}(\n{indent}    {parameters}\n{indent}{end}"
        return f"{line}\n{indent}    "

    def _parameters(self, node: ast.arguments) -> Iterator[str]:
        """The text of each remaining parameter, for a signature without `/` and `*args`."""
        defaults = [None] * (len(node.args) - len(node.defaults)) + node.defaults
        pairs = [*zip(node.args, defaults, strict=True)]
        named = [
            pair
            for pair in zip(node.kwonlyargs, node.kw_defaults, strict=True)
            if pair[0].arg not in self.filled
        ]
        for argument, default in [*pairs, *named]:
            if named and argument is named[0][0]:
                yield "*"
            end = self._end(default or argument)
            yield self.source[self._start(argument) : end].decode()
        if node.kwarg:
            yield f"**{ast.unparse(node.kwarg)}"

    def _block(self, statements: Sequence[ast.stmt]) -> Iterator[Edit]:
        for statement in statements:
            taken = self._taken(statement)
            if taken is None:
                yield from self._statement(statement)
                continue
            leaves = bool(taken) and isinstance(taken[-1], ast.Return | ast.Raise)
            last = statements[-1] if leaves else statement
            if taken:
                yield Edit(
                    self._start(statement), self._end(last), self._dedented(taken, statement)
                )
            elif len(statements) == 1:
                yield Edit(self._start(statement), self._end(statement), b"pass")
            else:
                yield Edit(self.lines[statement.lineno - 1], self.lines[statement.end_lineno or 0])
            if leaves:
                return

    def _statement(self, node: ast.stmt) -> Iterator[Edit]:
        """The edits within a statement, which is joined into one line if it then fits."""
        edits = list(self._inside(node))
        text = self._applied(self._start(node), self._end(node), edits)
        line = b" ".join(part.strip() for part in text.splitlines())
        line = line.replace(b"( ", b"(").replace(b" )", b")")
        simple = isinstance(node, ast.Assign | ast.Return | ast.Expr)
        plain = not re.search(rb"[#\"']|,\s*\)|= \(\n", text)  # no comment, string or magic comma
        if edits and simple and plain and node.col_offset + len(line) <= WIDTH:
            edits = [Edit(self._start(node), self._end(node), line)]
        yield from edits

    def _taken(self, statement: ast.stmt) -> list[ast.stmt] | None:
        """The branch of an `if` that every call takes; None if it is not known."""
        is_elif = self.source.startswith(b"elif", self._start(statement))
        if not isinstance(statement, ast.If) or is_elif:
            return None
        truth = self._truth(statement.test)
        return None if truth is None else statement.body if truth else statement.orelse

    def _dedented(self, block: Sequence[ast.stmt], into: ast.stmt) -> bytes:
        text = self._applied(self._start(block[0]), self._end(block[-1]), self._block(block))
        step = b" " * (block[0].col_offset - into.col_offset)
        return text.replace(b"\n" + step, b"\n").removeprefix(b"el")  # an `elif` becomes an `if`

    def _inside(self, node: ast.AST) -> Iterator[Edit]:
        for _, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            if children and isinstance(children[0], ast.stmt):
                yield from self._block(children)
                continue
            for child in children:
                if isinstance(child, ast.AST):
                    yield from self._expression(child)

    def _expression(self, node: ast.AST) -> Iterator[Edit]:
        if isinstance(node, ast.expr) and self._known(node) is not ...:
            yield Edit(self._start(node), self._end(node), repr(self._known(node)).encode())
        elif isinstance(node, ast.IfExp) and (truth := self._truth(node.test)) is not None:
            branch = node.body if truth else node.orelse
            text = self._applied(self._start(branch), self._end(branch), self._expression(branch))
            yield Edit(*self._with_parentheses(node), text)
        elif isinstance(node, ast.Call):
            yield from self._call(node)
        else:
            yield from self._inside(node)

    def _call(self, node: ast.Call) -> Iterator[Edit]:
        yield from self._expression(node.func)
        arguments = sorted([*node.args, *node.keywords], key=self._start)
        kept: list[ast.AST] = []
        for i, argument in enumerate(arguments):
            if not self._goes(node, argument):
                kept.append(argument)
                yield from self._expression(argument)
            elif kept:
                yield Edit(self._end(arguments[i - 1]), self._end(argument))
            else:
                following = arguments[i + 1 : i + 2]
                end = self._start(following[0]) if following else self._end(argument)
                yield Edit(self._start(argument), end)

    def _goes(self, call: ast.Call, argument: ast.AST) -> bool:
        if isinstance(argument, ast.keyword) and argument.arg:
            return self.redundant(call.func, argument.arg, self._known(argument.value))
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.IfExp):
            truth = self._truth(argument.value.test)
            branch = argument.value.body if truth else argument.value.orelse
            return (
                truth is not None and isinstance(branch, ast.List | ast.Tuple) and not branch.elts
            )
        return False

    def _known(self, node: ast.expr) -> Any:
        """The value of an expression that reads only filled parameters, else `...`."""
        return _value(node, self.filled) if _names(node) <= self.filled.keys() else ...

    def _truth(self, test: ast.expr) -> bool | None:
        """A condition's value in all calls; None if it varies or reads more than parameters."""
        if not self.calls or not all(_names(test) <= call.keys() for call in self.calls):
            return None
        values = {bool(_value(test, call)) for call in self.calls}
        return values.pop() if len(values) == 1 else None

    def _with_parentheses(self, node: ast.expr) -> tuple[int, int]:
        """The span of an expression including redundant parentheses around it."""
        before = self.source[: self._start(node)].rstrip()
        after = self.source[self._end(node) :]
        close = len(self.source) - len(after.lstrip())
        if before.endswith(b"= (") and self.source.startswith(b")", close):
            return len(before) - 1, close + 1
        return self._start(node), self._end(node)

    def _applied(self, start: int, end: int, edits: Iterator[Edit] | Sequence[Edit]) -> bytes:
        parts = []
        for edit in sorted(edits, key=lambda edit: edit.start):
            parts += [self.source[start : edit.start], edit.text]
            start = edit.end
        return b"".join([*parts, self.source[start:end]])

    def _start(self, node: Any) -> int:
        return self.lines[node.lineno - 1] + node.col_offset

    def _end(self, node: Any) -> int:
        return self.lines[node.end_lineno - 1] + node.end_col_offset


def _stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _names(node: ast.expr) -> set[str]:
    """The names an expression reads; {""} for a call, an attribute, or no name at all."""
    parts = list(ast.walk(node))
    if any(isinstance(part, ast.Call | ast.Attribute | ast.Lambda) for part in parts):
        return {""}
    return {part.id for part in parts if isinstance(part, ast.Name)} or {""}


def _value(node: ast.expr, names: Call) -> Any:
    code = compile(ast.Expression(node), "<condition>", "eval")
    return eval(code, {"__builtins__": {}}, dict(names))  # an expression of our own source
