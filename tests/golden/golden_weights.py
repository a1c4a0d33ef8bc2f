"""The weights of the golden forward passes: a rule that knows nothing of our modules.

Every block has a base id; its convolutions and, separately, its batch norms count up from there in
order of application. Source: README of the golden data.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from search_spaces.cells import Cell
from supernets.mixed_op import PartialMixedOp
from supernets.network import CellModule, Network

Ids = Mapping[str, Sequence[int]]  # edge -> base ids of the ops it holds, in their order
PER_LAYER = 10000


@torch.no_grad()
def fill(block: nn.Module, base: int, phase: float, *, norm_base: int | None = None) -> None:
    """Gives convolutions, linear layers and batch norms of one block the values of their ids."""
    layers = [m for m in block.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    for k, layer in enumerate(layers, base):
        i = _from_one(layer.weight)
        values = torch.sin(0.61 * i + 1.7 * (k + 1) + phase) / layer.weight[0].numel() ** 0.5
        layer.weight.copy_(values.view_as(layer.weight))
        if layer.bias is not None:
            layer.bias.copy_(0.1 * torch.cos(0.9 * _from_one(layer.bias) + k + phase))
    for k, norm in enumerate(norms, base if norm_base is None else norm_base):
        if norm.affine:
            c = _from_one(norm.weight)
            norm.weight.copy_(1 + 0.2 * torch.sin(1.3 * c + k + phase))
            norm.bias.copy_(0.1 * torch.cos(0.7 * c + k + phase))


def _from_one(like: Tensor) -> Tensor:
    """1, 2, 3, ... up to the number of elements, in float64."""
    return torch.arange(1, like.numel() + 1, dtype=torch.float64)


def fill_edge(edge: nn.Module, ids: Sequence[int], phase: float, offset: int = 0) -> None:
    ops = edge.mixed.ops if isinstance(edge, PartialMixedOp) else edge.ops
    for op, base in zip(ops, ids, strict=True):
        fill(op, offset + base, phase)


def fill_cell(cell: CellModule, ids: Ids, phase: float, offset: int = 0) -> None:
    for k, preprocess in enumerate(cell.preprocess):
        fill(preprocess, offset + 2000 + 10 * k, phase)
    for name, edge in cell.edges.items():
        fill_edge(edge, ids[name], phase, offset)


def fill_network(net: Network, ids: Mapping[str, Ids], phase: float) -> None:
    """`ids`: group -> those of its cells."""
    fill(net.stem, 0, phase)
    fill(net.head, 5, phase, norm_base=7)
    for i, (layer, place) in enumerate(zip(net.layers, net.space.layers, strict=True), 1):
        if place.group is None:
            fill(layer, PER_LAYER * i, phase)
        else:
            fill_cell(layer, ids[place.group], phase, PER_LAYER * i)


def search_ids(cell: Cell) -> Ids:
    """100 * edge + 10 * candidate."""
    return {
        edge.name: [100 * e + 10 * o for o in range(len(edge.names))]
        for e, edge in enumerate(cell.edges)
    }


def derived_ids(edges: Sequence[tuple[str, str]]) -> Ids:
    """10 * position in the genotype or arch string."""
    return {edge: [10 * m] for m, (edge, _) in enumerate(edges)}


def without_running_statistics(module: nn.Module) -> None:
    """Lets batch norms use the batch's statistics in eval mode too."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean, norm.running_var, norm.track_running_stats = None, None, False
