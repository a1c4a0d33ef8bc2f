"""Writes `model.py`: a final network as one readable file that needs torch and nothing else."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Any

import torch
from torch import Tensor, nn

from engine import model_text as text
from engine.literals import Code, literal
from engine.sources import PROJECT, Sources, UnportableError, calls_during
from search_spaces.architecture import Architecture
from search_spaces.ops import FactorizedReduce, ReLUConvBN
from search_spaces.space import Cell, Space
from supernets.network import Network, final_network
from supernets.skeleton import HEADS, STEMS, ResidualBlock

FINAL = {"affine": True, "search": False}  # what a final network builds its ops with
PREPROCESS = {FactorizedReduce: "({c_in}, {c_out})", ReLUConvBN: "({c_in}, {c_out}, 1)"}
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
Nodes = dict[int, dict[int, list[str]]]  # node -> source -> operations


def standalone(
    net: Network, architecture: Architecture, weights: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> str:
    """The text of `model.py` for a final network, beside which `weights` will lie.

    Args:
        facts: the constants of the file: `classes`, `mean`, `std`, `parameters`, `macs`.

    Raises:
        UnportableError: the source of an operation cannot be had, or uses more than torch.
    """
    space = net.space
    sources = Sources(calls_during(lambda: _build(space, architecture)), text.NAMES)
    for module, attribute in text.IMPORTS:
        sources.add_import(module, attribute)
    cells = {name: _nodes(cell, architecture.choices[name]) for name, cell in space.groups.items()}
    operations = _operations(space, cells, sources)
    network = _network(net, sources)
    head = Template(text.HEAD).substitute(
        identity=architecture.identity,
        space=space.name,
        imports="\n".join(sources.import_lines()),
        input_shape=literal(space.input_shape),
        classes=literal(tuple(facts["classes"]), used=len("CLASSES = ")),
        mean=literal(tuple(facts["mean"]), used=len("MEAN = ")),
        std=literal(tuple(facts["std"]), used=len("STD = ")),
        parameters=f"{facts['parameters']:_}",
        macs=f"{facts['macs']:_}",
        cells=literal(cells, used=len("CELLS = ")),
    )
    dtypes = {DTYPES[dtype]: Code(str(dtype)) for dtype in {t.dtype for t in weights.values()}}
    use = Template(text.USE).substitute(dtypes=literal(dict(sorted(dtypes.items()))))
    own = sources.definitions.values()
    parts = [head, *own, operations, text.EDGE, _cell(space, cells), network, use]
    return "\n\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _build(space: Space, architecture: Architecture) -> None:
    with torch.device("meta"), torch.no_grad():
        final_network(space, architecture).eval()(torch.empty(1, *space.input_shape))


def _nodes(cell: Cell, kept: Mapping[str, Sequence[str]]) -> Nodes:
    nodes: Nodes = {node: {} for node in cell.targets}
    for edge in cell.edges:
        names = [name for name in kept.get(edge.name, ()) if name != "none"]
        if names:
            nodes[edge.target][edge.source] = names
    return nodes


def _operations(space: Space, cells: Mapping[str, Nodes], sources: Sources) -> str:
    """The table of operations by name; the source of those from outside is taken as it stands."""

    def ours(name: str) -> bool:
        return _peeled(space.operations[name])[0].__module__.partition(".")[0] in PROJECT

    nodes = [node for cell in cells.values() for node in cell.values()]
    used = {name for node in nodes for names in node.values() for name in names}
    rows = {}
    for name in sorted(used, key=ours):  # ours last: what others need of ours must stay whole
        thing, settings = _peeled(space.operations[name])
        try:
            row = sources.add(thing, verbatim=not ours(name))
        except UnportableError as error:
            raise UnportableError(f"operation '{name}': {error}") from None
        settings |= {k: v for k, v in FINAL.items() if k not in sources.filled(thing)}
        if settings:
            sources.add_import("functools", "partial")
            row = ", ".join([f"partial({row}", *(f"{k}={literal(v)}" for k, v in settings.items())]) + ")"
        rows[name] = Code(row)
    return f"OPERATIONS = {literal(dict(sorted(rows.items())), used=len('OPERATIONS = '))}"


def _peeled(constructor: Any) -> tuple[Any, dict[str, Any]]:
    """The class or function inside a partial, and the settings it was given."""
    if not isinstance(constructor, functools.partial):
        return constructor, {}
    return constructor.func, dict(constructor.keywords)


def _cell(space: Space, cells: Mapping[str, Nodes]) -> str:
    """The class of all cells: they differ in `CELLS`, channels and stride alone."""
    (inputs,) = {cell.inputs for cell in space.cells.values()}
    (output,) = {cell.output for cell in space.cells.values()}
    names = ["before", "last"][-inputs:]
    stride = "stride" if any(e.strided for cell in space.cells.values() for e in cell.edges) else ""
    ...


def _network(net: Network, sources: Sources) -> str:
    ...
