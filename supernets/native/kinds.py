"""Which candidates the kernels know, and what of their layers a kernel takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.ops import FactorizedReduce
from supernets.chains import Chain

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
    def maps(self) -> int:
        """How many maps of a forward pass its kernel can keep for the backward pass."""
        return {DENSE: 1, SEPARABLE: 2 * self.halves}.get(self.type, 0)

    @property
    def affine(self) -> bool:
        return bool(self.norms) and self.norms[0][0].affine

    @property
    def biased(self) -> bool:
        """Whether the convolutions before the first norm have biases."""
        return self.type == DENSE and self.convs[0][0].bias is not None

    @property
    def weights(self) -> list[Tensor]:
        return [m.weight for alike in self.convs for m in alike]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the weights of an edge, in the order of `convs`."""
        convs = [alike[0] for alike in self.convs]
        return [(m.out_channels, m.in_channels // m.groups, *m.kernel_size) for m in convs]

    @property
    def shifts(self) -> list[Tensor]:
        """Per norm the scales of all edges and then their shifts; the convolutions' biases."""
        found: list[Tensor] = []
        if self.affine:
            for alike in self.norms:
                found += [m.weight for m in alike] + [m.bias for m in alike]
        if self.biased:
            found += [cast(Tensor, m.bias) for m in self.convs[0]]
        return found

    def scale_and_shift(self, shifts: Sequence[Tensor], moments: Tensor | None) -> Tensor | None:
        """What a kernel takes for `shifts`: scale and shift behind the norms (norms, 2, E, C), None
        where there is nothing to do.

        `moments` (norms, 3, E, C), None where they are the batch's: there a bias before a norm
        changes nothing.
        """
        E, found = len(self.norms[0]) if self.norms else 0, None
        own = shifts[:-E] if self.biased else shifts
        if self.affine:
            found = torch.stack(list(own)).view(len(self.norms), 2, E, -1)
        if not self.biased or moments is None:
            return found
        biases = torch.stack(list(shifts[-E:]))
        if found is None:
            found = torch.stack([torch.ones_like(biases), torch.zeros_like(biases)])[None]
        found[0, 1] += found[0, 0] * moments[0, 1] * biases
        return found

    def shift_gradients(
        self, d: Tensor | None, shifts: Sequence[Tensor], moments: Tensor | None
    ) -> list[Tensor]:
        """The gradients of `shifts` from that of `scale_and_shift`."""
        E = len(self.norms[0]) if self.norms else 0
        found = list(d.flatten(0, 2).unbind()) if self.affine and d is not None else []
        if not self.biased:
            return found
        if d is None or moments is None:
            return found + [torch.zeros_like(bias) for bias in shifts[-E:]]
        passed = d[0, 1] * moments[0, 1]
        if self.affine:
            d[0, 0] += passed * torch.stack(list(shifts[-E:]))
            passed = passed * torch.stack(list(shifts[:E]))
        return found + list(passed.unbind())


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


def is_dense(layers: Sequence[nn.Module], stride: int) -> bool:
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
    if is_dense(one, stride):
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
