"""The native form: own CPU kernels for the candidates they know, torch operations for the rest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernets.fused import Active, Bundle, FusedCell, mixed
from supernets.layout import channels_first
from supernets.mixture import GroupMixture
from supernets.native.build import library
from supernets.native.kinds import kind_of
from supernets.native.plan import Plan, Step
from supernets.native.projection import Projection
from supernets.native.source import Source
from supernets.network import CellModule


@dataclass(frozen=True)
class Split:
    """What of a bundle the kernels run: a plan of its own, and which candidates it has and which it
    has not."""

    plan: Plan | None
    own: list[int]
    others: list[int]


@dataclass(frozen=True)
class Whole:
    """A plan for a cell, and where its gates and factors stand among those of the group."""

    plan: Plan
    gates: Tensor  # in (edges * width), step by step, kind by kind
    rows: Tensor  # the edge of each gate
    edges: Tensor  # step by step

    def __call__(self, states: Sequence[Tensor], mixture: GroupMixture) -> Sequence[Tensor]:
        gates = mixture.gates.flatten().index_select(0, self.gates)
        factors = mixture.factors
        if factors is not None:
            gates = gates * factors.index_select(0, self.rows)
            factors = factors.index_select(0, self.edges).float() if self.plan.partial else None
        return self.plan(states, gates.float(), factors, self.keeps(mixture))

    def knows(self, mixture: GroupMixture) -> bool:
        """Whether the kernels can run this mixture: they do not drop what bypasses an edge."""
        return mixture.keep is None or not self.plan.partial

    def keeps(self, mixture: GroupMixture) -> list[Tensor | None] | None:
        """Per step (B, E) of drop-path."""
        if mixture.keep is None:
            return None
        steps = mixture.keep.index_select(1, self.edges).split(self.plan.edges, 1)
        return [keep.contiguous() for keep in steps]


_twice = False


@contextmanager
def twice_differentiable(wanted: bool = True) -> Iterator[None]:
    """Within, passes are built of torch operations only, whose gradients have gradients."""
    global _twice
    before, _twice = _twice, wanted
    try:
        yield
    finally:
        _twice = before


def native(x: Tensor, stride: int) -> bool:
    """Whether the kernels can run on this state; a single value has no variance, as torch says."""
    several = x.size(0) * -(-x.size(2) // stride) * -(-x.size(3) // stride) > 1
    single = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return not _twice and several and single and x.device.type == "cpu"


class NativeCell(FusedCell):
    """A `Form` of a cell: one pass of the kernels where they know all of it.

    Else they run what they know, source by source, and the rest runs in the fused form, on channels
    first.
    """

    def __init__(self, cell: CellModule, *, keeps: bool = False):
        super().__init__(cell)
        self.keeps = keeps  # of the inputs what convolutions give, for the backward pass
        self.splits: WeakKeyDictionary[Bundle, Split] = WeakKeyDictionary()
        self.whole: tuple[Active, Whole | None] = (), None
        self.projections: list[Projection | None] = []

    def states(self, inputs: Sequence[Tensor], mixture: GroupMixture | None) -> Sequence[Tensor]:
        assert mixture is not None
        found, active = self.preprocessed(inputs), tuple(map(tuple, mixture.active))
        if self.whole[0] != active:
            self.whole = active, self._whole(mixture)
        whole = self.whole[1]
        if whole is not None and whole.knows(mixture) and all(native(x, 2) for x in found):
            return whole(found, mixture)
        return self.module.summed(found, partial(self.from_node, mixture=mixture))

    def preprocessed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        kernels = library()
        if not self.projections and kernels is not None:
            self.projections = [
                Projection.of(pre, kernels, keeps=self.keeps) for pre in self.module.preprocess
            ]
        found = []
        for x, pre, own in zip(inputs, self.module.preprocess, self.projections, strict=True):
            if own is not None and native(x, 2):
                found.append(own(x))
            else:
                found.append(x if type(pre) is nn.Identity else pre(channels_first(x)))
        return found

    def alone(self, e: int, x: Tensor, mixture: GroupMixture) -> Tensor | None:
        return super().alone(e, channels_first(x), mixture)

    def run(self, bundle: Bundle, x: Tensor, mixture: GroupMixture) -> Sequence[Tensor]:
        split = self.split(bundle)
        if split.plan is None or not native(x, bundle.stride):
            return super().run(bundle, channels_first(x), mixture)
        gates, factors = (t if t is None else t.to(x.dtype) for t in bundle.gates(mixture))
        assert gates is not None
        found = split.plan([x], gates[:, split.own].T.flatten(), factors if bundle.k > 1 else None)
        if not split.others:
            return found
        chains = [bundle.chains[o] for o in split.others]
        head = channels_first(x[:, : x.size(1) // bundle.k])
        rest = mixed(chains, head, gates[:, split.others])
        if bundle.k > 1:  # a mixed channel is the first of every k after the shuffle
            rest = F.pad(rest[:, :, :, None], (0, 0, 0, 0, 0, bundle.k - 1)).flatten(2, 3)
        return [y + more for y, more in zip(found, rest.unbind(1), strict=True)]

    def split(self, bundle: Bundle) -> Split:
        if bundle not in self.splits:
            self.splits[bundle] = split_bundle(bundle)
        return self.splits[bundle]

    def _whole(self, mixture: GroupMixture) -> Whole | None:
        """The plan for the cell, None where something in it runs in torch."""
        cell, steps, gates = self.module.cell, [], []
        edges: list[int] = []
        for state in range(cell.inputs + cell.nodes - 1):
            bundles, alone = self.plan(state, mixture)
            if any(mixture.active[e] for e in alone):
                return None
            for bundle in bundles:
                known, targets = self.split(bundle), [cell.edges[e].target for e in bundle.edges]
                if known.plan is None or known.others or len(set(targets)) < len(targets):
                    return None
                steps.append(Step(known.plan.steps[0].source, state, targets))
                rows, columns = bundle.place(mixture.gates.device)
                gates.append((rows * mixture.gates.size(1) + columns).T.flatten())
                edges += bundle.edges
        if {target for step in steps for target in step.targets} != set(cell.targets):
            return None
        plan = Plan(steps, cell.inputs, self.module.outputs)
        places = torch.cat(gates)
        return Whole(plan, places, places // mixture.gates.size(1), torch.tensor(edges))


def split_bundle(bundle: Bundle) -> Split:
    """What the kernels run of a bundle."""
    kernels = library()
    kinds = [kind_of(chains, bundle.stride) for chains in bundle.chains]
    own = [o for o, kind in enumerate(kinds) if kind is not None]
    if kernels is None or not own:
        return Split(None, [], list(range(len(kinds))))
    known, count = [kind for kind in kinds if kind is not None], len(bundle.edges)
    source = Source(kernels, known, count, stride=bundle.stride, k=bundle.k)
    return Split(alone(source), own, [o for o, kind in enumerate(kinds) if kind is None])


def alone(source: Source) -> Plan:
    """Each edge's values by themselves."""
    targets = range(1, source.edges + 1)
    return Plan([Step(source, 0, targets)], 1, targets)
