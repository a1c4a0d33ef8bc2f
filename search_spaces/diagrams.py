"""A model of a program as a graph, for drawings."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from search_spaces.choice import Choice, Option, Row
from search_spaces.language import Layer, Module


@dataclass(frozen=True)
class Diagram(Choice):
    """States, joined by runs of layers: a run starts at every convolution and pooling. A residual
    has a second way past its module, the parts of a concat are joined."""

    links: tuple[Row, ...]
    last: int
    keep = None
    inputs = 1

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.links

    @property
    def outputs(self) -> tuple[int, ...]:
        return (self.last,)

    @classmethod
    def of(cls, model: Module) -> "Diagram":
        rows: list[Row] = []
        states = count(1)

        def joined(source: int, text: str, kind: str, target: int | None = None) -> int:
            end = next(states) if target is None else target
            rows.append(Row(source, end, (Option(text, kind),)))
            return end

        def walk(module: Module, source: int) -> int:
            """The state after a module."""
            for step in _steps(module):
                if isinstance(step, list):
                    source = joined(source, ", ".join(map(_text, step)), _kind(step[0]))
                elif step.kind == "residual":
                    end = walk(step.parts[0], source)
                    source = joined(source, "residual", "identity", end) if end > source else source
                else:
                    ends = [walk(part, source) for part in step.parts]
                    source = next(states)
                    for end in ends:
                        joined(end, "concat", "identity", source)
            return source

        last = walk(model, 0)
        return cls(tuple(rows), last)

    @property
    def kept(self) -> dict[str, tuple[str, ...]]:
        """The options of all rows, by the rows' names."""
        found: dict[str, tuple[str, ...]] = {}
        for row in self.rows:
            found[row.name] = (*found.get(row.name, ()), *row.names)
        return found


def _steps(module: Module) -> Iterator[list[Layer] | Module]:
    """Runs of layers, and residuals and concats, in order."""
    run: list[Layer] = []
    for part in _flat(module):
        if run and (not isinstance(part, Layer) or _kind(part) != "op"):
            yield run
            run = []
        if isinstance(part, Layer):
            run = [*run, part]
        else:
            yield part
    if run:
        yield run


def _flat(module: Module) -> Iterator[Module]:
    """The modules of nested sequences."""
    if module.kind != "sequence":
        yield module
        return
    for part in module.parts:
        yield from _flat(part)


def _kind(layer: Layer) -> str:
    """The kind of an option that a run has by its first layer."""
    kinds = {"conv": "conv", "max_pool": "pool", "average_pool": "pool"}
    return kinds.get(layer.kind, "op")


def _text(layer: Layer) -> str:
    return " ".join(map(str, (layer.kind, *layer.parts)))
