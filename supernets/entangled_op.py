"""A mixed op whose candidates of one kind share their weights: smaller kernels are the centres of
the largest one.

Source: Sukthanker et al. 2024, arXiv:2312.10440. That the gates of a kind multiply its output,
behind the norm, is our own: see `EntangledOp`.
"""

from collections.abc import Hashable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from supernets.chains import Chain, chain_of
from supernets.entangled import EntangledConv2d, Sizes
from supernets.mixed_op import Candidate, MixedOp
from supernets.super_kernel import share, total


class EntangledOp(nn.Module):
    """Candidates that differ in their kernels alone run as one, of the largest kernel.

        y = sum over kinds k of m_k op_k(x; W_k(g / m_k)),   m_k = sum of the gates of the kind

    W_k(h) is the superposition of the kernels with gates h (`supernets.entangled`). In the public
    code the gates themselves multiply kernels in front of a batch norm, which takes their common
    factor away: then kinds are not compared with each other. Candidates without siblings, and those
    that are no chain of known layers, run as in a `MixedOp`. A row of one option holds that option.

    Raises ValueError where no two candidates differ in their kernels alone.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        c_in: int,
        c_out: int,
        stride: int,
        *,
        affine: bool = False,
    ):
        super().__init__()
        kinds: dict[Hashable, list[int]] = {}
        for o, candidate in enumerate(candidates):
            kinds.setdefault(kind_of(candidate) or o, []).append(o)
        self.kinds = list(kinds.values())
        if len(candidates) > 1 and all(len(options) == 1 for options in self.kinds):
            raise ValueError(
                "of these candidates no two differ in their kernels alone, such as sep_conv_3x3 "
                "and sep_conv_5x5; set strategy/mixed_op=full"
            )
        shape = c_in, c_out, stride
        self.parts = nn.ModuleList(
            Kind([candidates[o] for o in options], *shape, affine=affine) for options in self.kinds
        )

    def forward(self, x: Tensor, gates: Tensor, active: Sequence[int]) -> Tensor | None:
        """x (B, C, H, W), gates (O,), the options that run; None where none does."""
        outputs = []
        for options, part in zip(self.kinds, self.parts, strict=True):
            run = [i for i, o in enumerate(options) if o in active]
            if run:
                own = (
                    gates
                    if len(options) == len(gates)
                    else torch.stack([gates[o] for o in options])
                )
                outputs.append(part(x, own, run))
        found = [y for y in outputs if y is not None]
        return sum(found[1:], found[0]) if found else None


class Kind(nn.Module):
    """Candidates that differ in their kernels alone, or others, which run one by one."""

    def __init__(
        self, candidates: Sequence[Candidate], c_in: int, c_out: int, stride: int, *, affine: bool
    ):
        super().__init__()
        self.nested = len(candidates) > 1
        shape = c_in, c_out, stride
        if not self.nested:
            self.ops = MixedOp(candidates, *shape, affine=affine)
            return
        self.sizes = tuple(kernel_of(candidate) for candidate in candidates)
        largest = candidates[self.sizes.index(max(self.sizes))]
        chain = chain_of(largest(*shape, affine=affine, search=True))
        assert chain is not None
        self.layers = nn.ModuleList(entangled(chain, max(self.sizes)))

    def forward(self, x: Tensor, gates: Tensor, active: Sequence[int]) -> Tensor | None:
        if not self.nested:
            y: Tensor | None = self.ops(x, gates, active)
            return y
        mass = total(gates, active)
        shares = torch.stack([share(gate, mass) for gate in gates.unbind()])
        kernel = Sizes(shares, self.sizes, tuple(active))
        for layer in self.layers:
            x = layer(x, kernel) if isinstance(layer, EntangledConv2d) else layer(x)
        return mass * x


def entangled(chain: Chain, size: int) -> Chain:
    """A chain of layers in which convolutions of the largest kernel take smaller ones, too."""
    return [
        EntangledConv2d(
            layer.in_channels,
            layer.out_channels,
            size,
            stride=layer.stride[0],
            dilation=layer.dilation[0],
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (size, size)
        else layer
        for layer in chain
    ]


def kernel_of(candidate: Candidate) -> int:
    assert isinstance(candidate, partial)
    size: int = candidate.keywords["kernel_size"]
    return size


def kind_of(candidate: Candidate) -> Hashable | None:
    """All but the kernel of a candidate that is a chain of known layers, with an odd kernel."""
    if not isinstance(candidate, partial) or candidate.keywords.get("kernel_size", 0) % 2 == 0:
        return None
    with torch.device("meta"):
        if chain_of(candidate(2, 2, 1, affine=False, search=True)) is None:
            return None
    rest = {name: v for name, v in candidate.keywords.items() if name != "kernel_size"}
    return candidate.func, candidate.args, tuple(sorted(rest.items()))
