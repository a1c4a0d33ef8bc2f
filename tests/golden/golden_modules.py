"""Spaces, mixtures and single cells of the golden forward passes."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from search_spaces.cells import Cell
from search_spaces.darts import CANDIDATES as DARTS
from search_spaces.darts import darts
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.nasbench201 import nasbench201
from search_spaces.ops import FactorizedReduce, ReLUConvBN
from search_spaces.space import Space
from supernets.blueprint import cell_layout
from supernets.final import ChosenOps
from supernets.mixture import GroupMixture
from supernets.network import CellModule

Edges = Sequence[tuple[str, str]]  # a genotype: [(edge, candidate), ...]
EDGES_INTO_A_NODE = [2, 3, 4, 5]  # of a DARTS cell
IMAGE = {"input_shape": (3, 16, 16), "classes": 10}


def darts_space(channels: int) -> Space:
    return darts(layers=3, nodes=4, channels=channels, candidates=list(DARTS), **IMAGE)


def nasbench201_space(channels: int) -> Space:
    return nasbench201(layers=5, nodes=3, channels=channels, candidates=list(NASBENCH201), **IMAGE)


def mixture_of(alphas: Tensor, betas: Tensor | None = None) -> GroupMixture:
    """Softmax of alphas over candidates, of betas over the edges into a node; everything runs."""
    parts = [] if betas is None else betas.split(EDGES_INTO_A_NODE)
    factors = torch.cat([part.softmax(0) for part in parts]) if parts else None
    edges, candidates = alphas.shape
    return GroupMixture(alphas.softmax(-1), factors, [range(candidates)] * edges)


def mixed(cell: Cell, operations: Mapping, mixed_op: Callable) -> Callable:
    """Fills the edges of a cell with mixed ops."""

    def fill_with(e: int, c_in: int, c_out: int, stride: int) -> nn.Module:
        return mixed_op([operations[name] for name in cell.edges[e].names], c_in, c_out, stride)

    return fill_with


def chosen(cell: Cell, operations: Mapping, edges: Edges) -> Callable:
    """Fills the edges of a cell with what a genotype keeps."""
    kept = {edge: candidate for edge, candidate in edges if candidate != "none"}

    def fill_with(e: int, c_in: int, c_out: int, stride: int) -> nn.Module | None:
        name = kept.get(cell.edges[e].name)
        return ChosenOps([operations[name]], c_in, c_out, stride) if name else None

    return fill_with


def darts_cell(
    kind: str, C: int, channels: int, fill_with: Callable, *, affine: bool
) -> CellModule:
    """Inputs of 2C and 3C channels; the first has twice the sides in `normal_after_reduce`."""
    before = (
        FactorizedReduce(2 * C, channels, affine=affine)
        if kind == "normal_after_reduce"
        else ReLUConvBN(2 * C, channels, 1, affine=affine)
    )
    preprocess = [before, ReLUConvBN(3 * C, channels, 1, affine=affine)]
    group = group_of(kind)
    cell = darts_space(channels).cells[group]
    return cell_module(cell, preprocess, fill_with, channels, 2 if group == "reduce" else 1)


def group_of(kind: str) -> str:
    return "reduce" if kind == "reduce" else "normal"


def nasbench201_cell(channels: int, fill_with: Callable) -> CellModule:
    cell = nasbench201_space(channels).cells["cell"]
    return cell_module(cell, [nn.Identity()], fill_with, channels, 1)


def cell_module(
    cell: Cell, preprocess: list[nn.Module], fill_with: Callable, channels: int, stride: int
) -> CellModule:
    filled = {
        edge.name: fill_with(e, channels, channels, edge.stride)
        for e, edge in enumerate(cell.edges)
    }
    edges = {name: module for name, module in filled.items() if module is not None}
    outputs = cell_layout(cell, {})["outputs"]
    return CellModule(cell, preprocess, edges, outputs, channels, stride).double()
