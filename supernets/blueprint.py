"""A space's network as data, from which `supernets.final.FinalNetwork` builds it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.cells import Cell, CellSpace, Layer
from search_spaces.space import Space
from search_spaces.stems import STEMS
from supernets.final import CellLayout, LayerLayout, Layout
from supernets.skeleton import HEADS, ResidualBlock, fit_input

Kept = Mapping[str, Mapping[str, Sequence[str]]]  # choice -> row -> operations


def skeleton(space: CellSpace, *, affine: bool) -> dict[str, Callable[..., Any]]:
    """The constructors of a network's fixed parts, as `FinalNetwork` takes them.

    Args:
        affine: whether the batch norms before cells have scale and shift.
    """
    parts: dict[str, Callable[..., Any]] = {"stem": STEMS[space.stem].build}
    if space.preprocess:
        parts["preprocess"] = partial(fit_input, affine=affine)
    if any(layer.cell is None for layer in space.layers):
        parts["block"] = ResidualBlock
    return parts | {"head": HEADS[space.head]}


def layout(space: CellSpace, kept: Kept) -> Layout:
    """A space's network as data, with these operations in the rows of each choice."""
    before, last = (space.stem_channels, STEMS[space.stem].second_stride), (space.stem_channels, 1)
    cells: dict[str, CellLayout] = {}
    layers: list[LayerLayout] = []
    for layer in space.layers:
        cell = space.cells[layer.cell] if layer.cell else None
        inputs = [before, last][-cell.inputs :] if cell else [last]
        stride = 2 if layer.reduction else 1
        if cell:
            cells[layer.place] = cell_layout(cell, edges_of(space, layer, kept))
        layers.append(
            {
                "cell": layer.place if cell else None,
                "inputs": inputs,
                "channels": layer.channels,
                "stride": stride,
            }
        )
        before = last[0], stride
        last = (len(cell.outputs) if cell else 1) * layer.channels, 1
    return {
        "image_channels": space.input_shape[0],
        "stem_channels": space.stem_channels,
        "cells": cells,
        "layers": layers,
        "head_channels": last[0],
        "classes": space.classes,
    }


def edges_of(space: CellSpace, layer: Layer, kept: Kept) -> Mapping[str, Sequence[str]]:
    """The operations on the edges of a layer's cell, by name."""
    assert layer.group is not None
    if layer.row is None:
        return kept[layer.group]
    assert layer.cell is not None
    (edge,) = space.cells[layer.cell].edges
    row = space.choices[layer.group].rows[layer.row]
    return {edge.name: kept[layer.group].get(row.name, ())}


def cell_layout(cell: Cell, names: Mapping[str, Sequence[str]]) -> CellLayout:
    """A cell with these operations on its edges."""
    kept = [edge for edge in cell.edges if names.get(edge.name)]
    return {
        "edges": {edge.name: list(names[edge.name]) for edge in kept},
        "strided": [edge.name for edge in kept if edge.strided],
        "outputs": list(cell.outputs),
    }


def without_zeros(space: Space, architecture: Architecture) -> Kept:
    """The operations in every row, in the file's order, which is that of a network's weights; a
    file written by hand may name zeros beside them."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, choice in space.choices.items():
        rows, kept = {row.name: row for row in choice.rows}, architecture.choices[name]
        zeros = {r: [o.name for o in row.options if o.kind == "zero"] for r, row in rows.items()}
        found[name] = {r: [o for o in options if o not in zeros[r]] for r, options in kept.items()}
    return found


def everything(space: Space) -> Kept:
    """All operations in every row."""
    return {
        name: {row.name: row.names for row in choice.rows} for name, choice in space.choices.items()
    }
