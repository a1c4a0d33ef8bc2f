"""Candidates that run in step, as few operations as their layers allow, for `supernets.packed`.

A lane is a candidate on all edges of a bundle. Lanes are aligned at their ends. There 1x1
convolutions, batch norms and ReLUs of several lanes are one operation; other layers run one by one.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops import FactorizedReduce
from supernets.convolution import is_pointwise
from supernets.fused import Shared, convolved, factorised, normalised
from supernets.layout import by_rows

Alike = tuple[nn.Module, ...]  # a layer of a candidate, once for every edge
Lane = Sequence[Alike]  # the layers of a candidate in order


class Source(NamedTuple):
    """What all lanes start from: the state, or its ReLU."""

    lanes: int
    relu: bool


class Together(NamedTuple):
    """The last layers of several lanes, as one operation on what comes before."""

    lanes: int
    layers: Alike  # lane by lane, edge by edge
    inner: "Block"


class Side(NamedTuple):
    """Lanes side by side. `layers`, if any, are their last ones; `parts` compute what comes before,
    each for some of the lanes."""

    lanes: int
    layers: Sequence[Alike]
    parts: Sequence[tuple["Block", Sequence[int]]]


Block = Source | Together | Side


def block_of(lanes: Sequence[Lane]) -> Block:
    """How to compute lanes side by side in few operations."""
    n, kinds = len(lanes), [kind_of(lane[-1][0]) if lane else Source for lane in lanes]
    relu = len(lanes[0]) == 1 and kinds[0] is nn.ReLU
    if all(len(lane) == relu for lane in lanes) and (relu or not lanes[0]) and len(set(kinds)) == 1:
        return Source(n, relu)
    before = [lane[:-1] for lane in lanes]
    if len(set(kinds)) > 1:
        return Side(n, (), [(block_of([lanes[i] for i in g]), g) for g in alike(kinds)])
    if kinds[0] is not None:
        layers = tuple(layer for lane in lanes for layer in lane[-1])
        return Together(n, layers, block_of(before))
    groups = alike([tuple(kind_of(layer[0]) for layer in lane) for lane in before])
    parts = [(block_of([before[i] for i in g]), g) for g in groups]
    return Side(n, [lane[-1] for lane in lanes], parts)


def alike(keys: Sequence[Hashable]) -> list[list[int]]:
    """The positions of equal keys, in the order in which the keys occur first."""
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def kind_of(layer: Any) -> Hashable:
    """What must be equal for one operation to compute a layer of several candidates; None where it
    cannot."""
    if isinstance(layer, nn.BatchNorm2d):
        return type(layer), layer.num_features, layer.eps, layer.affine
    if type(layer) is nn.Conv2d:
        plain = is_pointwise(layer) and layer.groups == 1 and layer.bias is None
        return (nn.Conv2d, layer.in_channels, layer.out_channels) if plain else None
    return nn.ReLU if type(layer) is nn.ReLU else None


def convolutions(block: Block) -> Iterator[Alike]:
    """The convolutions of a block, those of one operation together."""
    if isinstance(block, Together):
        if type(block.layers[0]) is nn.Conv2d:
            yield block.layers
        yield from convolutions(block.inner)
    elif isinstance(block, Side):
        for layers in block.layers:
            if type(layers[0]) is nn.Conv2d:
                yield layers
            elif is_factorised(layers[0]):
                yield from zip(*(m.convs for m in layers), strict=True)
        for part, _ in block.parts:
            yield from convolutions(part)


def is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d)


def is_factorised(layer: nn.Module) -> bool:
    return type(layer) is FactorizedReduce


class Lanes(Shared):
    """Computes blocks; `weights` are those of a cell, by the convolutions of an operation."""

    def __init__(self, x: Tensor, edges: int, weights: Mapping[Alike, Tensor]):
        super().__init__(x, edges)
        self.weights = weights

    def weight(self, convs: Sequence[Any]) -> Tensor:
        found = self.weights.get(tuple(convs))
        return super().weight(convs) if found is None else found

    def repeat(self, x: Tensor) -> Tensor:
        if not by_rows(x):
            return super().repeat(x)
        return x[:, None].expand(-1, self.edges, -1, -1, -1).flatten(1, 2)

    def computed(self, block: Block) -> tuple[Tensor, bool]:
        """The lanes of a block side by side, (B, lanes * E * C, H, W), and True; what they have in
        common, (B, C, H, W), and False."""
        if isinstance(block, Source):
            return self.relu() if block.relu else self.x, False
        if isinstance(block, Side):
            return torch.cat(self.apart(block), 1), True
        x, stacked = self.computed(block.inner)
        if type(block.layers[0]) is nn.Conv2d:
            return convolved(x, block.layers, self, stacked), True
        return normalised(x, block.layers, None) if is_norm(block.layers[0]) else F.relu(x), True

    def apart(self, block: Side) -> list[Tensor]:
        """The lanes of a block, (B, E * C, H, W) each."""
        found: dict[int, Tensor] = {}
        for part, lanes in block.parts:
            x, stacked = self.computed(part)
            inputs = x.chunk(len(lanes), 1) if stacked else [x] * len(lanes)
            for i, y in zip(lanes, inputs, strict=True):
                if block.layers:
                    y = self.layer(y, block.layers[i], stacked)
                found[i] = y if block.layers or stacked else self.repeated(y)
        return [found[i] for i in range(block.lanes)]

    def pooled(self, lane: Lane) -> Tensor:
        """What an `in_common` lane gives, (B, C, H/s, W/s)."""
        x = self.x
        for layers in lane:
            x = normalised(x, layers, None) if is_norm(layers[0]) else layers[0](x)
        return x

    def layer(self, x: Tensor, layers: Alike, stacked: bool) -> Tensor:
        if type(layers[0]) is nn.Conv2d:
            return convolved(x, layers, self, stacked)
        return factorised(x, layers, self) if is_factorised(layers[0]) else layers[0](x)
