"""The fused form: all edges that leave one state are evaluated together, in torch operations.

They share their ReLU and their pools; convolutions of one kind become one grouped convolution,
batch norms one over all channels with the gates as its scale. Equal to the reference but for
rounding (tests/supernets/test_fused.py), and differentiable twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.ops import FactorizedReduce
from supernets.chains import Chain, adds_nothing, chain_of
from supernets.convolution import grouped
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture
from supernets.network import CellModule, dropped


@dataclass(frozen=True, eq=False)
class Bundle:
    """Edges out of one source that run the same candidates, at the same stride.

    `chains` holds, per candidate that adds something, the chain of every edge; `columns` where its
    gate stands in the row of each edge.
    """

    edges: Sequence[int]
    stride: int
    columns: Sequence[Sequence[int]]
    chains: Sequence[Sequence[Chain]]
    bypass: nn.Module | None  # of partial channels
    k: int
    places: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def gates(self, mixture: GroupMixture) -> tuple[Tensor, Tensor | None]:
        """Gates times factors (edges, chains), and the factors (edges,) alone."""
        rows, columns = self.place(mixture.gates.device)
        gates = mixture.gates[rows, columns]
        if mixture.factors is None:
            return gates, None
        factors = mixture.factors[rows[:, 0]]
        return gates * factors[:, None], factors

    def place(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Where the gates stand: rows (edges, 1), columns (edges, chains); copied there once."""
        if device not in self.places:
            rows, columns = torch.tensor(self.edges)[:, None], torch.tensor(self.columns).T
            self.places[device] = rows.to(device), columns.to(device)
        return self.places[device]


Active = tuple[tuple[int, ...], ...]


class FusedCell:
    """A `Form` of a cell; edges that it does not know run as in the reference."""

    def __init__(self, cell: CellModule):
        self.module = cell
        self.plans: dict[int, tuple[Active, list[Bundle], list[int]]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "FusedCell":
        return type(self)(memo[id(self.module)])  # a form is copied with its cell

    def states(self, inputs: Sequence[Tensor], mixture: GroupMixture | None) -> Sequence[Tensor]:
        """As `CellModule.states`."""
        return self.module.summed(
            self.preprocessed(inputs), partial(self.from_node, mixture=mixture)
        )

    def preprocessed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return self.module.preprocessed(inputs)

    def from_node(
        self,
        source: int,
        x: Tensor,
        mixture: GroupMixture | None,
        run: Callable[[Bundle, Tensor], Sequence[Tensor]] | None = None,
    ) -> list[tuple[int, Tensor]]:
        """As `CellModule.from_node`; `run` replaces the method."""
        assert mixture is not None
        run = run or partial(self.run, mixture=mixture)
        bundles, alone = self.plan(source, mixture)
        found = {e: self.alone(e, x, mixture) for e in alone}
        for bundle in bundles:
            outputs = zip(bundle.edges, run(bundle, x), strict=True)
            found |= {e: dropped(y, e, mixture) for e, y in outputs}
        edges = self.module.cell.edges
        return [(edges[e].target, y) for e in sorted(found) if (y := found[e]) is not None]

    def alone(self, e: int, x: Tensor, mixture: GroupMixture) -> Tensor | None:
        """What an edge that the form does not know adds to its target."""
        return self.module.from_edge(e, x, mixture)

    def run(self, bundle: Bundle, x: Tensor, mixture: GroupMixture) -> Sequence[Tensor]:
        """What each edge of a bundle adds to its target."""
        gates, factors = bundle.gates(mixture)
        head, tail = x.tensor_split([x.size(1) // bundle.k], dim=1)
        wide = torch.promote_types(gates.dtype, x.dtype)  # never narrower than they are
        y = mixed(bundle.chains, head, gates.to(wide))
        return y.unbind(1) if bundle.bypass is None else beside(y, bundle, tail, factors)

    def plan(self, source: int, mixture: GroupMixture) -> tuple[list[Bundle], list[int]]:
        """The bundles of a source, and the edges that must run alone; kept while they stay."""
        cell = self.module.cell
        outgoing = [e for e in cell.out_of(source) if cell.edges[e].name in self.module.edges]
        active = tuple(tuple(mixture.active[e]) for e in outgoing)
        if source not in self.plans or self.plans[source][0] != active:
            self.plans[source] = (active, *self._bundles(outgoing, active))
        return self.plans[source][1:]

    def _bundles(self, outgoing: list[int], active: Active) -> tuple[list[Bundle], list[int]]:
        alike: dict[Any, list[tuple[int, list[int], list[Chain], PartialMixedOp | None]]] = {}
        alone = []
        for e, running in zip(outgoing, active, strict=True):
            edge = self.module.cell.edges[e]
            op = self.module.edges[edge.name]
            partial = op if type(op) is PartialMixedOp else None
            known = partial is not None or type(op) is MixedOp
            ops = cast(MixedOp, op if partial is None else partial.mixed).ops if known else ()
            columns = [o for o in running if known and not adds_nothing(ops[o])]
            chains = [chain_of(ops[o]) for o in columns]
            if not columns or any(found is None for found in chains):
                alone.append(e)
                continue
            names = tuple(edge.names[o] for o in columns)
            key = names, edge.strided, partial and partial.k
            alike.setdefault(key, []).append((e, columns, cast(list[Chain], chains), partial))
        bundles = []
        for members in alike.values():
            edges, columns_of, chains_of, partials = zip(*members, strict=True)
            split = partials[0] is not None and partials[0].k > 1
            bundles.append(
                Bundle(
                    edges,
                    2 if self.module.cell.edges[edges[0]].strided else 1,
                    list(zip(*columns_of, strict=True)),
                    list(zip(*chains_of, strict=True)),
                    partials[0].bypass if split else None,
                    partials[0].k if split else 1,
                )
            )
        return bundles, alone


def beside(y: Tensor, bundle: Bundle, tail: Tensor, factors: Tensor | None) -> Sequence[Tensor]:
    """Puts the bypassed channels beside the mixed ones (B, E, C/k, H, W), and shuffles."""
    assert bundle.bypass is not None
    bypassed = bundle.bypass(tail)[:, None].expand(-1, len(bundle.edges), -1, -1, -1)
    if factors is not None:
        bypassed = gated(bypassed, factors)
    y = torch.cat([y, bypassed], 2)
    return y.unflatten(2, (bundle.k, -1)).transpose(2, 3).flatten(2, 3).unbind(1)


def mixed(chains: Sequence[Sequence[Chain]], x: Tensor, gates: Tensor) -> Tensor:
    """Candidates summed by their gates (E, O), for all edges at once: (B, E, C, H/s, W/s)."""
    total, shared = None, Shared(x, gates.size(0))
    for chains_of_edges, column in zip(chains, gates.unbind(1), strict=True):
        y = chained(list(zip(*chains_of_edges, strict=True)), shared, column)
        total = y if total is None else total + y
    assert total is not None
    return total


class Shared:
    """What the chains of one source have in common, computed once."""

    def __init__(self, x: Tensor, edges: int):
        self.x, self.edges = x, edges
        self._relu: Tensor | None = None
        self._repeated: list[tuple[Tensor, Tensor]] = []

    def relu(self) -> Tensor:
        if self._relu is None:
            self._relu = F.relu(self.x)
        return self._relu

    def repeated(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, E * C, H, W)."""
        for known, y in self._repeated:
            if known is x:
                return y
        self._repeated.append((x, self.repeat(x)))
        return self._repeated[-1][1]

    def repeat(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.edges, 1)  # keeps the layout of maps

    def weight(self, convs: Sequence[Any]) -> Tensor:
        """The weights of convolutions as one tensor."""
        return concatenated([m.weight for m in convs])


def chained(layers: Sequence[Sequence[nn.Module]], shared: Shared, gate: Tensor) -> Tensor:
    """One candidate on all edges, times its gates (E,): (B, E, C, H/s, W/s).

    `layers` holds the layers in order, each for every edge. Until the first that has weights the
    edges have one tensor in common.
    """
    E, x, stacked, folded = shared.edges, shared.x, False, False
    for i, alike in enumerate(layers):
        layer = alike[0]
        if type(layer) is nn.ReLU:
            x = shared.relu() if x is shared.x else F.relu(x)
        elif type(layer) is nn.Conv2d:
            x, stacked = convolved(x, alike, shared, stacked), True
        elif type(layer) is FactorizedReduce:
            x, stacked, folded = factorised(x, alike, shared), True, i == len(layers) - 1
            x = normalised(x, [m.bn for m in alike], scale_of(alike[0].bn, gate, folded))
        elif isinstance(layer, nn.BatchNorm2d):
            if not stacked and (layer.affine or not layer.training):  # the edges differ
                x, stacked = shared.repeated(x), True
            folded = stacked and i == len(layers) - 1
            x = normalised(x, alike, scale_of(layer, gate, folded))
        else:
            x = layer(x)
    y = x.unflatten(1, (E if stacked else 1, -1))
    return y if folded else gated(y, gate)


def scale_of(norm: Any, gate: Tensor, folded: bool) -> Tensor | None:
    """The gates (E,) as the scale (E * C,) of a batch norm that they are folded into."""
    return gate.repeat_interleave(norm.num_features) if folded else None


def gated(y: Tensor, by: Tensor) -> Tensor:
    """y (B, E, C, H, W) times a number (E,) an edge that is not rounded; in the precision of y."""
    return (by.view(1, -1, 1, 1, 1) * y).to(y.dtype)


def concatenated(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]


def convolved(x: Tensor, convs: Sequence[Any], shared: Shared, stacked: bool) -> Tensor:
    """The same convolution of every edge, each with its weights, as one: (B, E * C', H', W')."""
    conv = convs[0]
    groups = conv.groups
    if stacked or groups > 1:
        x, groups = x if stacked else shared.repeated(x), groups * len(convs)
    weight = shared.weight(convs)
    bias = None if conv.bias is None else concatenated([m.bias for m in convs])
    return grouped(x, weight, bias, conv, groups)


def factorised(x: Tensor, layers: Sequence[Any], shared: Shared) -> Tensor:
    """The convolutions of `FactorizedReduce` on every edge: (B, E * C', H/2, W/2)."""
    x = shared.relu() if x is shared.x else F.relu(x)
    shifted = F.pad(x, (0, x.size(3) % 2, 0, x.size(2) % 2))[:, :, 1:, 1:]
    views = (x, shifted)[-len(layers[0].convs) :]
    halves = [
        convolved(view, [m.convs[i] for m in layers], shared, False).chunk(len(layers), 1)
        for i, view in enumerate(views)
    ]
    return torch.cat([half for edge in zip(*halves, strict=True) for half in edge], 1)


def normalised(x: Tensor, norms: Sequence[Any], scale: Tensor | None) -> Tensor:
    """The batch norms of all edges as one, times a scale (E * C,): x is (B, E * C, H, W), or
    (B, C, H, W) where the edges have it in common."""
    norm, shift = norms[0], None
    if norm.affine:
        weight, shift = (
            concatenated([m.weight for m in norms]),
            concatenated([m.bias for m in norms]),
        )
        scale, shift = (weight, shift) if scale is None else (scale * weight, scale * shift)
    if not norm.training:
        mean = concatenated([m.running_mean for m in norms])
        variance = concatenated([m.running_var for m in norms])
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, norm.eps)
    y, mean, variance = NORMALISATIONS[type(norm)](norm, x, scale, shift)
    if norm.track_running_stats:
        record_all(norms, mean, variance)
    return y


def over_batch(
    norm: Any, x: Tensor, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The images normalised over the batch, and its mean and unbiased variance, one a channel;
    these are None where the norm does not track them."""
    mean = variance = None
    if norm.track_running_stats:
        mean, variance = norm.running_mean.new_zeros(2, x.size(1))
    y = F.batch_norm(x, mean, variance, scale, shift, True, 1.0, norm.eps)
    return y, mean, variance


# How a batch norm in training normalises images, by its class: `over_batch`, or with other
# statistics. Takes and returns what `over_batch` does.
NORMALISATIONS: dict[type, Callable[..., tuple[Tensor, Any, Any]]] = {nn.BatchNorm2d: over_batch}


def record_all(norms: Sequence[Any], means: Tensor, variances: Tensor) -> None:
    """`record_statistics` of (E * C,), or of (C,) that all have in common."""
    rows = [t.view(-1, norms[0].num_features).expand(len(norms), -1) for t in (means, variances)]
    record_statistics(norms, *(row.unbind() for row in rows))


@torch.no_grad()
def record_statistics(
    norms: Sequence[Any], means: Sequence[Tensor], variances: Sequence[Tensor]
) -> None:
    """Moves running statistics as `nn.BatchNorm2d` does; of each norm (C,)."""
    torch._foreach_add_([m.num_batches_tracked for m in norms], 1)
    buffers = [m.running_mean for m in norms] + [m.running_var for m in norms]
    found, rates = [*means, *variances], [rate(m) for m in norms]
    if len(set(rates)) == 1:
        torch._foreach_lerp_(buffers, found, rates[0])
        return
    for buffer, value, weight in zip(buffers, found, [*rates, *rates], strict=True):
        buffer.lerp_(value, weight)


def rate(norm: Any) -> float:
    """By how much a batch norm moves its statistics; without momentum they are averages."""
    momentum = norm.momentum
    return 1.0 / float(norm.num_batches_tracked) if momentum is None else momentum
