"""Writes `model.py`: a final network as one readable file that needs only torch."""

import functools
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import torch
from torch import Tensor, nn

from archsmith.result.export import model_text as text
from archsmith.result.export.literals import WIDTH, Code, literal, packed
from archsmith.result.export.module_source import UnportableError
from archsmith.result.export.sources import PROJECT, Sources, calls_during
from search_spaces.architecture import Architecture
from search_spaces.cells import Cell, Layer
from search_spaces.ops import ReLUConvBN
from search_spaces.space import Space
from supernets.network import CellModule, Network, final_network
from supernets.skeleton import HEADS, STEMS

FINAL = {"affine": True, "search": False}  # arguments of every op in a final network
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
    net: Network,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> str:
    """The text of `model.py` for a final network; the file of `weights` must be in the same folder.

    Args:
        facts: the constants of the file: `classes`, `mean`, `std`, `resize`, `parameters`, `macs`.

    Raises:
        UnportableError: the source of an operation is unavailable, or needs more than torch.
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
        classes=packed(facts["classes"], used=len("CLASSES = ")),
        mean=literal(tuple(facts["mean"]), used=len("MEAN = ")),
        std=literal(tuple(facts["std"]), used=len("STD = ")),
        resize=literal(facts["resize"]),
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
    """The table of operations by name; the source of user-defined ones is copied verbatim."""

    def ours(name: str) -> bool:
        constructor = space.operations[name]
        return getattr(constructor, "func", constructor).__module__.partition(".")[0] in PROJECT

    nodes = [node for cell in cells.values() for node in cell.values()]
    used = {name for node in nodes for names in node.values() for name in names}
    rows = {}
    for name in sorted(
        used, key=lambda name: (ours(name), name)
    ):  # user-defined ones first, as they may need ours unspecialised
        try:
            rows[name] = Code(_row(space.operations[name], sources, whole=not ours(name)))
        except ValueError as error:
            raise UnportableError(f"operation '{name}': {error}") from None
    return f"OPERATIONS = {literal(dict(sorted(rows.items())), used=len('OPERATIONS = '))}"


def _row(constructor: Any, sources: Sources, *, whole: bool) -> str:
    """The value of a row: a callable that takes `(c_in, c_out, stride)`."""
    thing, settings = _peeled(constructor)
    name = sources.add(thing, whole=whole)
    settings |= {key: value for key, value in FINAL.items() if key not in sources.filled(thing)}
    if not settings:
        return name
    sources.add_import("functools", "partial")
    return f"partial({name}, {', '.join(f'{k}={literal(v)}' for k, v in settings.items())})"


def _peeled(constructor: Any) -> tuple[Any, dict[str, Any]]:
    """The class or function inside a partial, and the partial's keyword arguments."""
    if not isinstance(constructor, functools.partial):
        return constructor, {}
    if constructor.args:
        raise UnportableError(f"its settings {constructor.args} have no names; give them by name")
    return constructor.func, dict(constructor.keywords)


def _cell(space: Space, cells: Mapping[str, Nodes]) -> str:
    """The class of all cells, which differ only in `CELLS`, channels and stride."""
    inputs, output = _ends(space)
    reduces = any(layer.reduction for layer in space.layers if layer.cell)
    empty = any(not sources for nodes in cells.values() for sources in nodes.values())
    states = names = ["before", "last"][-inputs:]
    parameters, lines = "", ""
    if space.preprocess:
        states = [f"self.preprocess[{i}]({name})" for i, name in enumerate(names)]
        parameters = ", preprocess: list[nn.Module]"
        lines = "        self.preprocess = nn.ModuleList(preprocess)\n"
    if reduces:
        parameters += ", stride: int = 1"
    if reduces and empty:
        lines += "        self.stride = stride\n"
    forward = Template(text.SUMS_WITH_EMPTY if empty else text.SUMS).substitute(
        states=", ".join(states),
        last_input=inputs - 1,
        every_second="[:, :, :: self.stride, :: self.stride]" if reduces else "",
    )
    return Template(text.CELL).substitute(
        about=text.ABOUT_CELL[inputs, output],
        init_parameters=parameters,
        init_lines=lines,
        edge_stride=f"stride if source < {inputs} else 1" if reduces else "1",
        forward_parameters=", ".join(f"{name}: Tensor" for name in names),
        forward_lines=forward,
        output="states[-1]" if output == "last" else f"torch.cat(states[{inputs}:], 1)",
    )


def _ends(space: Space) -> tuple[int, str]:
    """The cells' number of inputs and output rule. Raises UnportableError if they differ."""
    ends = {(cell.inputs, cell.output) for cell in space.cells.values()}
    if len(ends) > 1 or next(iter(ends)) not in text.ABOUT_CELL:
        raise UnportableError(f"no text for a space whose cells have the inputs and outputs {ends}")
    for layer in space.layers:
        cell = space.cells[layer.cell] if layer.cell else None
        if cell is None:
            continue
        for edge in cell.edges:
            if edge.strided != (layer.reduction and edge.source < cell.inputs):
                raise UnportableError(
                    f"no text for a space in which edge {edge.name} has its stride"
                )
    return ends.pop()


def _network(net: Network, sources: Sources) -> str:
    space = net.space
    inputs, _ = _ends(space)
    if inputs == 2 and None in [layer.cell for layer in space.layers]:
        raise UnportableError("no text for cells of two inputs beside residual blocks")
    before = last = space.stem_channels
    layers = []
    for place, layer in zip(space.layers, net.layers, strict=True):
        if isinstance(layer, CellModule):
            made = [
                _preprocess(module, channels, place.channels, sources)
                for module, channels in zip(layer.preprocess, [before, last][-inputs:], strict=True)
            ]
            layers.append(_layer(place, made if space.preprocess else []))
            before, last = last, len(layer.cell.outputs) * place.channels
        else:
            layers.append(f"{sources.add(type(layer))}({last}, {place.channels})")
            before, last = last, place.channels
    return Template(text.NETWORK).substitute(
        stem=sources.add(STEMS[space.stem]),
        image_channels=space.input_shape[0],
        stem_channels=space.stem_channels,
        layers="\n".join(f"{text.LAYER_INDENT}{layer}," for layer in layers),
        head=sources.add(HEADS[space.head]),
        head_channels=last,
        forward_lines=text.ONE_INPUT if inputs == 1 else text.TWO_INPUTS,
    )


def _layer(place: Layer, preprocess: Sequence[str]) -> str:
    given = [literal(place.group), str(place.channels)]
    if preprocess:
        given.append(f"[{', '.join(preprocess)}]")
    if place.reduction:
        given.append("stride=2")
    line = f"Cell({', '.join(given)})"
    if len(f"{text.LAYER_INDENT}{line},") <= WIDTH:
        return line
    rows = "".join(f"{text.LAYER_INDENT}    {item},\n" for item in given)
    return f"Cell(\n{rows}{text.LAYER_INDENT})"


def _preprocess(module: nn.Module, c_in: int, c_out: int, sources: Sources) -> str:
    if isinstance(module, nn.Identity):
        return "nn.Identity()"
    kind = type(module)
    stride = ", 1" if kind is ReLUConvBN else ""
    affine = "" if "affine" in sources.filled(kind) else ", affine=True"
    return f"{sources.add(kind)}({c_in}, {c_out}{stride}{affine})"
