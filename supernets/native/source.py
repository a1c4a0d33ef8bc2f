"""The edges that leave one state, as the native kernels take them."""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from supernets.fused import record_statistics
from supernets.native.checks import check_source
from supernets.native.interface import CImage, CKind, CSource, Pointers, pointer, ran
from supernets.native.kinds import DENSE, Kind


@dataclass(frozen=True)
class Given:
    """What a pass reads, float32 on the CPU."""

    x: Tensor  # (B, k C, H, W)
    training: bool  # whether the batch norms take the moments of the batch
    gates: Tensor  # (kinds * E,), kind by kind
    factors: Tensor | None  # (E,) of what bypasses, None for ones
    keep: Tensor | None  # (B, E) of drop-path
    moments: Tensor  # kind by kind (norms, 3, E, C): mean, 1 / deviation, variance
    affine: Sequence[Tensor | None]  # per kind scale and shift (norms, 2, E, C)
    weights: Sequence[Tensor]
    kept: Sequence[Tensor | None]  # per kind memory for what it gives, for the backward pass


@dataclass(frozen=True)
class Gradients:
    """Where a backward pass writes."""

    x: Tensor
    adds: bool  # to what is in `x`
    gates: Tensor
    factors: Tensor
    weights: Tensor | None  # kind by kind, weight by weight; None where none are wanted
    affine: Sequence[Tensor | None]


class Source:
    """Candidates that run on the same edges out of one state, and the library that runs them.

    With k > 1 they run on the first C/k channels, and the others bypass them. The forward pass
    keeps what dense convolutions give, which takes the longest to compute anew; with `keeps` also
    what depthwise and pointwise ones give.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        kinds: Sequence[Kind],
        edges: int,
        *,
        stride: int,
        k: int,
        keeps: bool = False,
    ):
        self.library, self.kinds, self.edges, self.stride = library, kinds, edges, stride
        self.k = k
        self.maps = [kind.maps if keeps or kind.type == DENSE else 0 for kind in kinds]
        self.shapes = [s for kind in kinds for s in kind.shapes for _ in range(edges)]
        self.floats = [sum(edges * math.prod(s) for s in kind.shapes) for kind in kinds]
        self.norms = [len(kind.norms) for kind in kinds]
        self.shift_counts = [len(kind.shifts) for kind in kinds]

    @property
    def weights(self) -> list[Tensor]:
        return [w for kind in self.kinds for w in kind.weights]

    @property
    def shifts(self) -> list[Tensor]:
        return [t for kind in self.kinds for t in kind.shifts]

    def channels(self, x: Tensor) -> int:
        """Those that the candidates see."""
        return x.size(1) // self.k

    def moments(self, x: Tensor) -> Tensor:
        """Memory for the moments of a pass, filled in where they are not the batch's."""
        found = x.new_empty(sum(self.norms) * 3 * self.edges * self.channels(x))
        if self.training:
            return found
        for kind, stats in zip(self.kinds, self.by_kind(found), strict=True):
            for row, norms in zip(stats, kind.norms, strict=True):
                if not norms[0].training:
                    torch.stack([cast(Tensor, m.running_mean) for m in norms], out=row[0])
                    variance = torch.stack([cast(Tensor, m.running_var) for m in norms])
                    torch.rsqrt(variance + norms[0].eps, out=row[1])
        return found

    def kept(self, x: Tensor) -> list[Tensor | None]:
        """Memory per kind for what its convolutions give, None where that is computed anew."""
        floats = self.map_floats(x)
        return [x.new_empty(n * floats) if n else None for n in self.maps]

    def map_floats(self, x: Tensor) -> int:
        """Of what a kind gives on all edges, as the kernels lay it out."""
        h, w = (-(-side // self.stride) for side in x.shape[2:])
        lanes: int = self.library.map_lanes(self.channels(x), self.edges)
        return x.size(0) * h * w * lanes

    def by_kind(self, moments: Tensor) -> list[Tensor]:
        """Per kind (norms, 3, E, C)."""
        rows = sum(self.norms)
        shaped = moments.view(rows, 3, self.edges, -1) if rows else moments
        return list(shaped.split(self.norms))

    def affine(
        self, shifts: Sequence[Tensor], moments: Tensor, *, training: bool
    ) -> list[Tensor | None]:
        """Per kind what its `shifts` come to."""
        if not shifts:
            return [None] * len(self.kinds)
        parts = split(shifts, self.shift_counts)
        of_kinds = zip(self.kinds, parts, self.by_kind(moments), strict=True)
        return [kind.scale_and_shift(own, None if training else m) for kind, own, m in of_kinds]

    def shift_gradients(
        self,
        d: Sequence[Tensor | None],
        shifts: Sequence[Tensor],
        moments: Tensor,
        *,
        training: bool,
    ) -> list[Tensor]:
        """The gradients of `shifts`; `d` are those of `affine`."""
        if not shifts:
            return []
        parts = split(shifts, self.shift_counts)
        of_kinds = zip(self.kinds, d, parts, self.by_kind(moments), strict=True)
        return [
            t
            for kind, g, own, m in of_kinds
            for t in kind.shift_gradients(g, own, None if training else m)
        ]

    @property
    def training(self) -> bool:
        """Whether the batch norms, if there are any, take the moments of the batch."""
        return any(norms[0].training for kind in self.kinds for norms in kind.norms)

    def record(self, moments: Tensor) -> None:
        """Moves the running statistics of the batch norms that keep them."""
        moved: list[nn.BatchNorm2d] = []
        means: list[Tensor] = []
        variances: list[Tensor] = []
        for kind, stats in zip(self.kinds, self.by_kind(moments), strict=True):
            for row, norms in zip(stats, kind.norms, strict=True):
                if not (norms[0].training and norms[0].track_running_stats):
                    continue
                mean = row[0]
                if kind.biased:
                    mean = mean + torch.stack([cast(Tensor, m.bias) for m in kind.convs[0]])
                moved += norms
                means += mean.unbind()
                variances += row[2].unbind()
        if moved:
            record_statistics(moved, means, variances)

    def forward(self, given: Given, y: Sequence[Tensor], adds: Sequence[bool]) -> None:
        """Writes to y, per edge (B, k C, H/s, W/s), or `adds` to what is there. Raises MemoryError;
        of tensors that do not fit TypeError, ValueError."""
        check_source(self, given, y, None)
        self._call("source_forward", given, y, adds, None)

    def backward(self, given: Given, dy: Sequence[Tensor], gradients: Gradients) -> None:
        """Raises as `forward`."""
        check_source(self, given, dy, gradients)
        self._call("source_backward", given, dy, [False] * len(dy), gradients)

    def _call(
        self,
        name: str,
        given: Given,
        y: Sequence[Tensor],
        adds: Sequence[bool],
        to: Gradients | None,
    ) -> None:
        x, kinds, held = given.x, (CKind * len(self.kinds))(), []
        E, C, first, norms, floats = self.edges, self.channels(x), 0, 0, 0
        for i, kind in enumerate(self.kinds):
            last = first + len(kind.convs) * E
            addresses = [w.data_ptr() for w in given.weights[first:last]]
            held.append((ctypes.c_void_p * len(addresses))(*addresses))
            conv = kind.convs[0][0] if kind.convs else None
            kinds[i] = CKind(
                kind.type, kind.halves, conv.kernel_size[0] if conv else 1,
                conv.dilation[0] if conv else 1, len(kind.norms) > 0,
                kind.norms[0][0].eps if kind.norms else 0.0, ctypes.cast(held[-1], Pointers),
                pointer(given.moments, norms * 3 * E * C), pointer(given.gates, i * E),
                pointer(to.gates if to else None, i * E),
                pointer(to.weights if to else None, floats) if addresses else None,
                pointer(given.affine[i]), pointer(to.affine[i] if to else None),
                pointer(given.kept[i]),
            )  # fmt: skip
            first, norms, floats = last, norms + self.norms[i], floats + self.floats[i]
        source = CSource(
            x.size(0), C, *x.shape[2:], E, self.stride, len(self.kinds), given.training,
            torch.get_num_threads(), self.k, to is not None and to.adds,
            (ctypes.c_int32 * E)(*adds), kinds, pointer(given.factors),
            pointer(to.factors if to else None), pointer(given.keep), CImage.of(x),
            CImage.of(to.x if to else x),
            (CImage * E)(*map(CImage.of, y)),
        )  # fmt: skip
        ran(getattr(self.library, name)(ctypes.byref(source)))


def split(items: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    """The items in parts of these sizes."""
    found, first = [], 0
    for size in sizes:
        found.append(items[first : first + size])
        first += size
    return found
