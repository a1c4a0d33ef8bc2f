"""The fused form for a GPU: fewer, larger operations, because launching one there takes longer than
computing it.

Edges share what they share in `supernets.fused`. Besides, the weights of a cell are put together by
one operation and its gates by three; layers that are alike in several candidates are one operation;
skip connections and pools are weighed by one matrix product. Equal to the reference but for
rounding (tests/supernets/test_packed.py), and differentiable twice.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from supernets.fused import Bundle, FusedCell, beside, chained, gated, normalised
from supernets.gpu import autocasts, capturing
from supernets.lanes import (
    Alike,
    Lane,
    Lanes,
    Together,
    alike,
    block_of,
    convolutions,
    is_factorised,
    is_norm,
    kind_of,
)
from supernets.layout import by_rows
from supernets.mixture import GroupMixture
from supernets.network import CellModule


@dataclass(frozen=True, eq=False)
class Pack:
    """A bundle, its candidates sorted by how they run; each is named by its place in `chains`."""

    bundle: Bundle
    lanes: Sequence[tuple[Sequence[int], Together]]  # convolutions that end in a batch norm
    common: Sequence[tuple[int, Lane]]  # pools and skips: edges differ in their gates alone
    others: Sequence[tuple[int, Lane]]

    @property
    def rest(self) -> int:
        return len(self.common) + len(self.others)

    @classmethod
    def of(cls, bundle: Bundle) -> "Pack":
        lanes = [tuple(zip(*chains, strict=True)) for chains in bundle.chains]
        convs = {i: split(lane) for i, lane in enumerate(lanes) if is_convolution(lane)}
        places, kinds = list(convs), [kind_of(lane[-1][0]) for lane in convs.values()]
        groups = [[places[j] for j in group] for group in alike(kinds)]
        blocks = [(group, block_of([convs[i] for i in group])) for group in groups]
        rest = [(i, lane) for i, lane in enumerate(lanes) if i not in convs]
        common = [(i, lane) for i, lane in rest if in_common(lane)]
        others = [(i, lane) for i, lane in rest if not in_common(lane)]
        return cls(bundle, blocks, common, others)  # type: ignore[arg-type]

    def gates(self, width: int) -> tuple[list[int], list[int]]:
        """Where they stand in (R * width): those of `lanes`, candidate by candidate, and all
        others, edge by edge."""
        rows, columns = self.bundle.edges, self.bundle.columns
        lanes = [i for group, _ in self.lanes for i in group]
        rest = [i for part in (self.common, self.others) for i, _ in part]
        return (
            [e * width + columns[i][k] for i in lanes for k, e in enumerate(rows)],
            [e * width + columns[i][k] for k, e in enumerate(rows) for i in rest],
        )


def split(lane: Lane) -> Lane:
    """The layers, with the batch norms of a `FactorizedReduce` as a layer of their own."""
    if is_factorised(lane[-1][0]):
        return [*lane, tuple(m.bn for m in lane[-1])]  # type: ignore[misc]
    return lane


def is_convolution(lane: Lane) -> bool:
    """Whether a lane is a convolution, of the state or its ReLU, and more, up to a batch norm."""
    types = [type(layer[0]) for layer in lane]
    if len(lane) == 1 and is_factorised(lane[0][0]):
        return True
    first = types[1:2] if types[:1] == [nn.ReLU] else types[:1]
    return first == [nn.Conv2d] and isinstance(lane[-1][0], nn.BatchNorm2d)


def in_common(lane: Lane) -> bool:
    """Whether a lane is pools, or nothing, and a batch norm that is the same for all edges."""
    norm = lane[-1][0] if lane else None
    if isinstance(norm, nn.BatchNorm2d):
        lane = lane[:-1] if norm.training and not norm.affine else [(norm,)]
    return all(type(layer[0]) in (nn.MaxPool2d, nn.AvgPool2d) for layer in lane)


class Taken(NamedTuple):
    """What a bundle takes of the gates in one pass, times the factors."""

    scales: Sequence[Tensor]  # of each group of lanes, (lanes * E * C,)
    gates: Tensor  # of all others, (E, O)
    factors: Tensor | None  # (E,)


@dataclass(frozen=True, eq=False)
class Whole:
    """All bundles of a cell, and where their gates stand among those of its group."""

    packs: Mapping[Bundle, Pack]
    convs: Sequence[Alike]  # those of each operation
    lanes: Tensor  # in (R * O), bundle by bundle
    others: Tensor
    rows: Tensor  # of the edges, bundle by bundle

    @classmethod
    def of(cls, bundles: Sequence[Bundle], width: int, device: torch.device) -> "Whole":
        packs = {bundle: Pack.of(bundle) for bundle in bundles}
        lanes, others = zip(*(pack.gates(width) for pack in packs.values()), strict=True)
        blocks = [block for pack in packs.values() for _, block in pack.lanes]
        places = [
            torch.tensor([i for one in each for i in one], dtype=torch.long, device=device)
            for each in (lanes, others, [bundle.edges for bundle in bundles])
        ]
        return cls(packs, [convs for block in blocks for convs in convolutions(block)], *places)

    def take(self, mixture: GroupMixture, dtype: torch.dtype, channels: int) -> dict[Bundle, Taken]:
        """What every bundle takes, in numbers at least as precise as `dtype`."""
        wide = torch.promote_types(mixture.gates.dtype, dtype)
        gates, factors = mixture.gates.to(wide), mixture.factors
        if factors is not None:
            factors = factors.to(wide)
            gates, factors = gates * factors[:, None], factors.index_select(0, self.rows)
        scales, others = (gates.flatten().index_select(0, at) for at in (self.lanes, self.others))
        scales = scales[:, None].expand(-1, channels).flatten()
        edges = [len(bundle.edges) for bundle in self.packs]
        packs = list(zip(self.packs.values(), edges, strict=True))
        sizes = [block.lanes * E * channels for pack, E in packs for _, block in pack.lanes]
        scale = iter(scales.split(sizes))
        rest = iter(others.split([pack.rest * E for pack, E in packs]))
        factor = iter(repeat(None) if factors is None else factors.split(edges))
        return {
            pack.bundle: Taken(
                [next(scale) for _ in pack.lanes], next(rest).view(E, -1), next(factor)
            )
            for pack, E in packs
        }

    def weights(self, device: torch.device) -> dict[Alike, Tensor]:
        """The weights of the convolutions of each operation, as one tensor."""
        if not self.convs:
            return {}
        kernels = [[cast(Tensor, m.weight) for m in convs] for convs in self.convs]
        flat = torch.cat([weight.flatten() for group in kernels for weight in group])
        if autocasts(device):
            flat = flat.to(torch.get_autocast_dtype(device.type))
        parts = flat.split([sum(weight.numel() for weight in group) for group in kernels])
        return {
            convs: part.view(-1, *group[0].shape[1:])
            for convs, group, part in zip(self.convs, kernels, parts, strict=True)
        }


class PackedCell(FusedCell):
    """A `Form` of a cell on a GPU."""

    def __init__(self, cell: CellModule):
        super().__init__(cell)
        self.whole: tuple[Hashable, Whole | None] = None, None
        # Graphs of a training go on reading their tensors, whatever runs between two replays.
        self.captured: list[Whole | None] = []

    def states(self, inputs: Sequence[Tensor], mixture: GroupMixture | None) -> Sequence[Tensor]:
        assert mixture is not None
        found = self.preprocessed(inputs)
        whole = self.planned(mixture)
        if whole is None:
            return self.module.summed(found, partial(self.from_node, mixture=mixture))
        device, channels = found[0].device, self.module.channels
        weights = whole.weights(device)
        taken = whole.take(mixture, found[0].dtype, channels // next(iter(whole.packs)).k)

        def run(bundle: Bundle, x: Tensor) -> Sequence[Tensor]:
            return packed(whole.packs[bundle], x, taken[bundle], weights)

        return self.module.summed(found, partial(self.from_node, mixture=mixture, run=run))

    def planned(self, mixture: GroupMixture) -> Whole | None:
        """The bundles of the cell, None without any; kept while the same candidates run."""
        norm = next((m for m in self.module.edges.modules() if is_norm(m)), None)
        key = tuple(map(tuple, mixture.active)), norm is not None and norm.training
        if self.whole[0] != key:
            sources = range(max(self.module.outputs))
            bundles = [bundle for s in sources for bundle in self.plan(s, mixture)[0]]
            device, width = mixture.gates.device, mixture.gates.size(1)
            self.whole = key, Whole.of(bundles, width, device) if bundles else None
        whole = self.whole[1]
        if capturing(mixture.gates.device) and torch.is_grad_enabled():
            self.captured = [*(one for one in self.captured if one is not whole), whole]
        return whole


def packed(
    pack: Pack, x: Tensor, taken: Taken, weights: Mapping[Alike, Tensor]
) -> Sequence[Tensor]:
    """What each edge of a bundle adds to its target."""
    bundle, E, total = pack.bundle, len(pack.bundle.edges), None
    head, tail = x.tensor_split([x.size(1) // bundle.k], dim=1)
    shared = Lanes(head, E, weights)
    for (_, block), scale in zip(pack.lanes, taken.scales, strict=True):
        y = normalised(shared.computed(block.inner)[0], block.layers, scale)
        y = y.unflatten(1, (block.lanes, E, -1))
        total = added(total, y.sum(1) if block.lanes > 1 else y.squeeze(1))
    common, others = taken.gates.tensor_split([len(pack.common)], 1)
    if pack.common:
        total = weighed([shared.pooled(lane) for _, lane in pack.common], common, total)
    for (_, lane), gate in zip(pack.others, others.unbind(1), strict=True):
        total = added(total, chained(lane, shared, gate))
    assert total is not None
    if bundle.bypass is None:
        return total.unbind(1)
    return interleaved(total, bundle, tail, taken.factors)


def added(total: Tensor | None, y: Tensor) -> Tensor:
    return y if total is None else total + y


def weighed(terms: Sequence[Tensor], gates: Tensor, onto: Tensor | None) -> Tensor:
    """The terms (B, C, H, W) summed by gates (E, terms) that are not rounded: (B, E, C, H, W)."""
    x = terms[0]
    if autocasts(x.device) or gates.dtype != x.dtype or not by_rows(x):
        for term, gate in zip(terms, gates.unbind(1), strict=True):
            onto = added(onto, gated(term[:, None], gate))
        assert onto is not None
        return onto
    rows = gates.expand(len(x), -1, -1)
    maps = torch.stack(list(terms), 1).flatten(2) if len(terms) > 1 else x.flatten(1)[:, None]
    y = torch.bmm(rows, maps) if onto is None else torch.baddbmm(onto.flatten(2), rows, maps)
    return y.unflatten(2, x.shape[1:])


def interleaved(
    y: Tensor, bundle: Bundle, tail: Tensor, factors: Tensor | None
) -> Sequence[Tensor]:
    """As `beside`: the mixed channels (B, E, C/k, H, W) and those that bypass them, shuffled."""
    assert bundle.bypass is not None
    if not by_rows(y) or not by_rows(tail):
        return beside(y, bundle, tail, factors)
    B, E, C, H, W = y.shape
    z = bundle.bypass(tail)
    z = (
        z[:, None].expand(-1, E, -1, -1, -1)
        if factors is None
        else weighed([z], factors[:, None], None)
    )
    parts = y.reshape(B * E, C, 1, -1), z.reshape(B * E, bundle.k - 1, C, -1).transpose(1, 2)
    return torch.cat(parts, 2).view(B, E, -1, H, W).unbind(1)
