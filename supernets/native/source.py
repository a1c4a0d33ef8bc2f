"""The edges that leave one state as one differentiable operation of the native kernels.

Only the state itself and the batch norms' moments are kept for the backward pass, which computes
everything between anew. Float32 on the CPU; first derivatives only.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.ops import FactorizedReduce
from supernets.chains import Chain
from supernets.fused import record
from supernets.native.checks import check_source
from supernets.native.interface import (
    CImage,
    CKind,
    CSource,
    Pointers,
    first_derivative_only,
    pointer,
    ran,
)

SEPARABLE, MAX_POOL, AVG_POOL, IDENTITY, FACTORISED, DENSE = range(6)  # enum Type in interface.h


@dataclass(frozen=True)
class Kind:
    """One candidate on all edges; `convs` per half the depthwise and the pointwise of every edge
    (of a factorised reduction its two, of a dense convolution its one), `norms` per batch norm that
    of every edge."""

    type: int
    convs: Sequence[Sequence[nn.Conv2d]]
    norms: Sequence[Sequence[nn.BatchNorm2d]]

    @property
    def halves(self) -> int:
        return len(self.convs) // 2

    @property
    def biases(self) -> Tensor | None:
        """Of the convolutions before the first norm (E, C), None where they have none."""
        if self.type != DENSE or self.convs[0][0].bias is None:
            return None
        return torch.stack([cast(Tensor, m.bias) for m in self.convs[0]])

    @property
    def affine(self) -> Tensor | None:
        """Scale and shift behind the norms (norms, 2, E, C), None where they have none.

        A bias before a norm only shifts what comes out where the norm takes running statistics.
        """
        biases = self.biases
        if not self.norms or not (self.norms[0][0].affine or biases is not None):
            return None
        E, norm = len(self.norms[0]), self.norms[0][0]
        if norm.affine:
            alike = [
                getattr(m, name) for row in self.norms for name in ("weight", "bias") for m in row
            ]
            found = torch.stack(alike).view(len(self.norms), 2, E, -1)
        else:
            assert biases is not None
            found = torch.stack([torch.ones_like(biases), torch.zeros_like(biases)])[None]
        if biases is None:
            return found
        scale, shift = found[0]
        passed = torch.zeros_like(scale)
        if not norm.training:
            variance = torch.stack([cast(Tensor, m.running_var) for m in self.norms[0]])
            passed = scale * (variance + norm.eps).rsqrt()
        return torch.stack([scale, shift + passed * biases])[None]


def separable_half(layers: Sequence[nn.Module], stride: int) -> bool:
    """Whether the layers are ReLU, depthwise and pointwise convolution and batch norm, of a kind
    that the kernels know."""
    if [type(m) for m in layers] != [nn.ReLU, nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]:
        return False
    d, p = cast(nn.Conv2d, layers[1]), cast(nn.Conv2d, layers[2])
    C, K, dilation = d.in_channels, d.kernel_size[0], d.dilation[0]
    pad = dilation * (K - 1) // 2
    depthwise = (C, C, C, (K, K), (stride, stride), (pad, pad), (dilation, dilation), None)
    pointwise = (C, C, 1, (1, 1), (1, 1), (0, 0), (1, 1), None)
    return K in (3, 5) and (settings(d), settings(p)) == (depthwise, pointwise)


def settings(conv: nn.Conv2d) -> tuple[Any, ...]:
    sizes = conv.in_channels, conv.out_channels, conv.groups
    return *sizes, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.bias


def pool_type(layer: nn.Module, stride: int) -> int | None:
    """MAX_POOL or AVG_POOL for 3x3 pools of a kind that the kernels know."""
    window = [(3, (3, 3)), (stride, (stride, stride)), (1, (1, 1))]
    if type(layer) is nn.MaxPool2d:
        found = (layer.kernel_size, layer.stride, layer.padding)
        plain = layer.dilation in (1, (1, 1)) and not layer.ceil_mode
        kind = MAX_POOL
    elif type(layer) is nn.AvgPool2d:
        found = (layer.kernel_size, layer.stride, layer.padding)
        plain = not (layer.ceil_mode or layer.count_include_pad or layer.divisor_override)
        kind = AVG_POOL
    else:
        return None
    return kind if plain and all(f in w for f, w in zip(found, window, strict=True)) else None


def dense(layers: Sequence[nn.Module], stride: int) -> bool:
    """Whether the layers are ReLU, 1x1 or 3x3 convolution and batch norm, of a kind that the
    kernels know."""
    if [type(m) for m in layers] != [nn.ReLU, nn.Conv2d, nn.BatchNorm2d] or stride > 1:
        return False
    conv = cast(nn.Conv2d, layers[1])
    C, K = conv.in_channels, conv.kernel_size[0]
    expected = (C, C, 1, (K, K), (1, 1), (K // 2, K // 2), (1, 1))
    return K in (1, 3) and settings(conv)[:-1] == expected


def kind_of(chains: Sequence[Chain], stride: int) -> Kind | None:
    """A candidate's chains, one an edge, as the kernels see it; None where they cannot."""
    one = chains[0]
    layers = list(zip(*chains, strict=True))
    if dense(one, stride):
        return Kind(DENSE, cast(Any, layers[1:2]), cast(Any, layers[2:]))
    if one and type(one[0]) is nn.ReLU:
        halves = [(one[i : i + 4], 1 if i else stride) for i in range(0, len(one), 4)]
        if len(halves) > 2 or not all(separable_half(*half) for half in halves):
            return None
        if len({(m.kernel_size, m.dilation) for m in cast(Any, one[1::4])}) > 1:
            return None
        convs = [layers[i + j] for i in range(0, len(one), 4) for j in (1, 2)]
        return Kind(SEPARABLE, cast(Any, convs), cast(Any, layers[3::4]))
    if one and type(one[0]) is FactorizedReduce:
        return factorised_kind(cast(Any, layers[0])) if len(one) == 1 and stride == 2 else None
    pool = pool_type(one[0], stride) if one else None
    norms = layers if pool is None else layers[1:]
    if [type(alike[0]) for alike in norms] not in ([], [nn.BatchNorm2d]):
        return None
    if pool is None and stride > 1:
        return None
    return Kind(IDENTITY if pool is None else pool, [], cast(Any, norms))


def factorised_kind(ops: Sequence[FactorizedReduce]) -> Kind | None:
    convs = [cast(nn.Conv2d, m) for m in ops[0].convs]
    C = convs[0].in_channels
    shape = (1, (1, 1), (2, 2), (0, 0), (1, 1), None)
    expected = [(C, outputs, *shape) for outputs in (C // 2, C - C // 2)]
    if [settings(m) for m in convs] != expected:
        return None
    halves = [[op.convs[part] for op in ops] for part in (0, 1)]
    return Kind(FACTORISED, cast(Any, halves), [[op.bn for op in ops]])


class Source:
    """Candidates that run on the same edges out of one state, and the library that runs them.

    With k > 1 they run on the first C/k channels, and the others bypass them.
    """

    def __init__(
        self, library: ctypes.CDLL, kinds: Sequence[Kind], edges: int, *, stride: int, k: int
    ):
        self.library, self.kinds, self.edges, self.stride = library, kinds, edges, stride
        self.k = k
        self.convs = [m for kind in kinds for alike in kind.convs for m in alike]

    def __call__(
        self, x: Tensor, gates: Tensor, factors: Tensor | None, keep: Tensor | None = None
    ) -> Sequence[Tensor]:
        """x (B, C, H, W), gates (E, kinds), factors (E,) of what bypasses, `keep` (B, E) of
        drop-path -> what each edge adds, (B, C, H/s, W/s)."""
        weights = [
            m.weight if m.weight.is_contiguous() else m.weight.contiguous() for m in self.convs
        ]
        affine = [kind.affine for kind in self.kinds]
        return Run.apply(x, gates.T.contiguous(), factors, keep, self, *affine, *weights)

    def moments(self, x: Tensor) -> list[Tensor]:
        """Per kind (norms, 3, E, C): mean, 1 / deviation, variance; of eval mode filled in."""
        found = []
        for kind in self.kinds:
            stats = x.new_empty(len(kind.norms), 3, self.edges, x.size(1) // self.k)
            for row, norms in zip(stats, kind.norms, strict=True):
                if not norms[0].training:
                    torch.stack([cast(Tensor, m.running_mean) for m in norms], out=row[0])
                    variance = torch.stack([cast(Tensor, m.running_var) for m in norms])
                    torch.rsqrt(variance + norms[0].eps, out=row[1])
            found.append(stats)
        return found

    @property
    def training(self) -> bool:
        """Whether the batch norms, if there are any, take the moments of the batch."""
        return any(norms[0].training for kind in self.kinds for norms in kind.norms)

    def record(self, moments: Sequence[Tensor]) -> None:
        for kind, stats in zip(self.kinds, moments, strict=True):
            biases = kind.biases
            for row, norms in zip(stats, kind.norms, strict=True):
                if norms[0].training and norms[0].track_running_stats:
                    mean = row[0] if biases is None else row[0] + biases
                    record(norms, mean, row[2])

    def call(
        self,
        name: str,
        training: bool,
        x: Tensor,
        y: Sequence[Tensor],
        gates: Tensor,
        factors: Tensor,
        keep: Tensor | None,
        moments: Sequence[Tensor],
        affine: Sequence[Tensor | None],
        weights: Sequence[Tensor],
        dx: Tensor | None = None,
        gate_gradients: Tensor | None = None,
        factor_gradients: Tensor | None = None,
        gradients: Sequence[Tensor | None] = (),
        affine_gradients: Sequence[Tensor | None] = (),
    ) -> None:
        """Calls `source_forward` or `source_backward`. Raises MemoryError; of tensors that do not
        fit TypeError, ValueError."""
        all_gates, all_factors = (gates, gate_gradients), (factors, factor_gradients)
        all_affine = (affine, affine_gradients)
        check_source(
            self, x, y, all_gates, all_factors, keep, moments, all_affine, weights, dx, gradients
        )
        kinds, pointers, first = (CKind * len(self.kinds))(), [], 0
        row = self.edges * gates.element_size()
        for i, (kind, stats) in enumerate(zip(self.kinds, moments, strict=True)):
            last = first + len(kind.convs) * self.edges
            pointers.append(
                (ctypes.c_void_p * (last - first))(*[w.data_ptr() for w in weights[first:last]])
            )
            first = last
            kernel, dilation = (1, 1)
            if kind.convs:
                kernel, dilation = kind.convs[0][0].kernel_size[0], kind.convs[0][0].dilation[0]
            gradient = gradients[i] if gradients else None
            affine_gradient = affine_gradients[i] if affine_gradients else None
            kinds[i] = CKind(
                kind.type, kind.halves, kernel, dilation, len(kind.norms) > 0,
                kind.norms[0][0].eps if kind.norms else 0.0,
                ctypes.cast(pointers[-1], Pointers), stats.data_ptr(), gates.data_ptr() + i * row,
                None if gate_gradients is None else gate_gradients.data_ptr() + i * row,
                pointer(gradient), pointer(affine[i]), pointer(affine_gradient),
            )  # fmt: skip
        source = CSource(
            x.size(0), x.size(1) // self.k, *x.shape[2:], self.edges, self.stride,
            len(self.kinds), training, torch.get_num_threads(), self.k, kinds, factors.data_ptr(),
            pointer(factor_gradients), pointer(keep),
            CImage.of(x), CImage.of(x if dx is None else dx),
            (CImage * len(y))(*map(CImage.of, y)),
        )  # fmt: skip
        ran(getattr(self.library, name)(ctypes.byref(source)))


class Run(torch.autograd.Function):
    """y_e = sum_o g_eo op_eo(x) for every edge e."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gates: Tensor,
        given: Tensor | None,
        keep: Tensor | None,
        source: Source,
        *parameters: Tensor | None,
    ) -> Any:
        B, C, H, W = x.shape
        h, w = (-(-side // source.stride) for side in (H, W))
        y = [x.new_empty(B, h, w, C).permute(0, 3, 1, 2) for _ in range(source.edges)]
        factors = x.new_ones(source.edges) if given is None else given.contiguous()
        moments, kinds = source.moments(x), len(source.kinds)
        affine, weights = parameters[:kinds], cast(Sequence[Tensor], parameters[kinds:])
        ctx.source, ctx.training = source, source.training
        source.call(
            "source_forward", ctx.training, x, y, gates, factors, keep, moments, affine, weights
        )
        source.record(moments)
        ctx.save_for_backward(x, gates, factors, keep, *moments, *parameters)
        return tuple(y)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        first_derivative_only()
        source: Source = ctx.source
        x, gates, factors, keep, *rest = ctx.saved_tensors
        kinds = len(source.kinds)
        moments, affine, weights = rest[:kinds], rest[kinds : 2 * kinds], rest[2 * kinds :]
        dx, d_gates, d_factors = (torch.empty_like(t) for t in (x, gates, factors))
        gradients: list[Tensor | None] = []
        parts: Sequence[Tensor | None] = [None] * len(weights)
        if any(ctx.needs_input_grad[5 + kinds :]):
            gradients, parts = source_gradients(source, x, weights)
        d_affine = [None if t is None else torch.empty_like(t) for t in affine]
        source.call(
            "source_backward", ctx.training, x, dy, gates, factors, keep, moments, affine, weights,
            dx, d_gates, d_factors, gradients, d_affine,
        )  # fmt: skip
        d_given = d_factors if ctx.needs_input_grad[2] else None
        return dx, d_gates, d_given, None, None, *d_affine, *parts


def source_gradients(
    source: Source, x: Tensor, weights: Sequence[Tensor]
) -> tuple[list[Tensor | None], list[Tensor]]:
    """Per kind the memory for its weights' gradients, and per weight its part of it."""
    whole: list[Tensor | None] = []
    parts: list[Tensor] = []
    first = 0
    for kind in source.kinds:
        shapes = [w.shape for w in weights[first : first + len(kind.convs) * source.edges]]
        first += len(shapes)
        memory = x.new_empty(sum(shape.numel() for shape in shapes))
        split = memory.split([shape.numel() for shape in shapes])
        parts += [part.view(shape) for part, shape in zip(split, shapes, strict=True)]
        whole.append(memory if shapes else None)
    return whole, parts
