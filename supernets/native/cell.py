"""The native form: own CPU kernels for the candidates they know, torch operations for the rest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernets.fused import Bundle, FusedCell, mixed
from supernets.layout import channels_first
from supernets.mixture import GroupMixture
from supernets.native.build import library
from supernets.native.projection import Projection
from supernets.native.source import Source, kind_of
from supernets.network import CellModule

Split = tuple[Source | None, list[int], list[int]]

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
    """A `Form` of a cell; what the kernels cannot do runs in the fused form, on channels first."""

    def __init__(self, cell: CellModule):
        super().__init__(cell)
        self.splits: WeakKeyDictionary[Bundle, Split] = WeakKeyDictionary()
        self.projections: list[Projection | None] = []

    def preprocessed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        kernels = library()
        if not self.projections and kernels is not None:
            self.projections = [Projection.of(pre, kernels) for pre in self.module.preprocess]
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
        if bundle not in self.splits:
            self.splits[bundle] = split(bundle)
        source, own, others = self.splits[bundle]
        if source is None or not native(x, bundle.stride):
            return super().run(bundle, channels_first(x), mixture)
        gates, factors = (t if t is None else t.to(x.dtype) for t in bundle.gates(mixture))
        assert gates is not None
        found = source(x, gates[:, own], None if bundle.k == 1 else factors)
        if not others:
            return found
        chains = [bundle.chains[o] for o in others]
        head = channels_first(x[:, : x.size(1) // bundle.k])
        rest = mixed(chains, head, gates[:, others])
        if bundle.k > 1:  # a mixed channel is the first of every k after the shuffle
            rest = F.pad(rest[:, :, :, None], (0, 0, 0, 0, 0, bundle.k - 1)).flatten(2, 3)
        return [y + more for y, more in zip(found, rest.unbind(1), strict=True)]


def split(bundle: Bundle) -> Split:
    """What the kernels run, and which candidates of the bundle these are and which are not."""
    kernels = library()
    kinds = [kind_of(chains, bundle.stride) for chains in bundle.chains]
    own = [o for o, kind in enumerate(kinds) if kind is not None]
    if kernels is None or not own:
        return None, [], list(range(len(kinds)))
    known = [kind for kind in kinds if kind is not None]
    source = Source(kernels, known, len(bundle.edges), stride=bundle.stride, k=bundle.k)
    return source, own, [o for o, kind in enumerate(kinds) if kind is None]
