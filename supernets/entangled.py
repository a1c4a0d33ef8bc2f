"""Nested sizes in one tensor: the weight of every option is a slice of the largest one.

    sum_i g_i pad(W[slice_i]) = S * W,   S the sum of the gates of the slices that hold an element

So a layer runs once, at the cost of its largest option, and no option owns weights. A kernel size
or an input width is gated on the weight. A hidden axis is gated once, on the activation behind its
norm and nonlinearity (`gated`), and the layer that reads it has no gate for it: so the mixture
stays equal to that of the networks of all options.

Sources: Sukthanker et al. 2024, arXiv:2312.10440 (superposition of slices); Wan et al. 2020,
arXiv:2004.05565 (masks on outputs). Norms by the statistics of each option, and the rule to gate
once, are our own.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.space import Space
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture

Slices = Sequence[tuple[slice, ...]]  # of each option, one slice per dimension of a weight


class Sizes(NamedTuple):
    """The sizes of one axis in one pass: gates (O,), the size of each option, and those that run.

    Parts of tensors beyond the largest size that runs are not computed.
    """

    gates: Tensor
    sizes: tuple[int, ...]
    active: tuple[int, ...]

    @classmethod
    def of(cls, row: GroupMixture, sizes: Sequence[int]) -> Self:
        """The sizes of a mixture of one row; its factor, if there is one, counts in all gates."""
        (active,) = row.active
        gates = row.gates[0] if row.factors is None else row.factors[0] * row.gates[0]
        return cls(gates[: len(sizes)], tuple(sizes), tuple(active))

    @property
    def largest(self) -> int:
        """The largest size that runs."""
        return max(self.sizes[o] for o in self.active)

    def survival(self) -> Tensor:
        """(largest,): the sum of the gates of the options that hold each index; with gates of sum
        1 the probability that the drawn size is above it."""
        if len(self.active) == 1:
            return self.gates[self.active[0]].expand(self.largest)
        sizes = tuple(self.sizes[o] for o in self.active)
        inside = _prefixes(sizes, self.gates.device).to(self.gates.dtype)
        return torch.stack([self.gates[o] for o in self.active]) @ inside

    def times(self, factor: int) -> Self:
        """The sizes of an axis in which every index stands for `factor` places."""
        return self._replace(sizes=tuple(size * factor for size in self.sizes))


@cache
def _prefixes(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """(O, largest): 1 where an index is below a size."""
    limits = torch.tensor(sizes, device=device)
    return (torch.arange(max(sizes), device=device) < limits[:, None]).float()


def check_mixed_op(mixed_op: Callable[..., nn.Module], space: Space) -> None:
    """Raises ValueError unless the mixed op is one that sums all options: entangled options are
    summed in their weights, and no module stands for a row."""
    made = getattr(mixed_op, "func", mixed_op)
    if not (isinstance(made, type) and issubclass(made, MixedOp)):
        raise ValueError(
            f"mixed_op: the options of space {space.name} are parts of one weight, which "
            f"{getattr(made, '__name__', made)} cannot mix; set strategy/mixed_op=full"
        )


def superpose(weight: Tensor, gates: Tensor, slices: Slices) -> Tensor:
    """sum_i gates_i pad(weight[slices_i]), of the weight's shape, by one multiplication.

    gates (O,); slices of any form, nested or not, as `prefixes` and `centred` make them.
    """
    return weight * survival(gates, slices, weight.shape)


def survival(gates: Tensor, slices: Slices, shape: Sequence[int]) -> Tensor:
    """The sum of the gates of the slices that hold each element; of size 1 in dimensions that all
    slices take whole. The masks of independent choices on one weight are multiplied."""
    cut = [
        any(option[d].indices(size) != (0, size, 1) for option in slices)
        for d, size in enumerate(shape)
    ]
    total = gates.new_zeros([size if c else 1 for size, c in zip(shape, cut, strict=True)])
    for gate, option in zip(gates, slices, strict=True):
        inside = torch.zeros_like(total)
        inside[tuple(s if c else slice(None) for s, c in zip(option, cut, strict=True))] = 1
        total = total + gate * inside
    return total


def prefixes(sizes: Sequence[int], dim: int, dims: int) -> Slices:
    """The slices of widths: the first indices of one dimension."""
    return [tuple(slice(size) if d == dim else slice(None) for d in range(dims)) for size in sizes]


def centred(sizes: Sequence[int], full: int) -> Slices:
    """The slices of square kernels, odd like `full`: the centres of the last two of four
    dimensions."""
    centres = [slice((full - k) // 2, (full + k) // 2) for k in sizes]
    return [(slice(None), slice(None), centre, centre) for centre in centres]


def gated(x: Tensor, sizes: Sizes | None, dim: int = 1) -> Tensor:
    """x with its axis `dim`, cut to the largest size that runs, times the survival of each index;
    unchanged for None. For activations, behind norm and nonlinearity."""
    if sizes is None:
        return x
    x = x.narrow(dim, 0, sizes.largest)
    shape = [1] * x.dim()
    shape[dim] = -1
    return x * sizes.survival().to(x.dtype).view(shape)


class EntangledConv2d(nn.Conv2d):
    """A convolution of the largest kernel and widths, at stride s and dilation d.

    forward: x (B, C, H, W) with the first C input channels, the sizes of the kernel, the largest
    number of output channels that is wanted -> (B, channels, H', W'). A smaller kernel is the
    centre of the largest one. Unless `padding`, that of the largest kernel, is given, H' is
    ceil(H / s). Depthwise if `groups` is the number of channels: then it has as many output
    channels as x.

    Raises ValueError for even kernels, and for groups other than 1 and depthwise.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding: int | None = None,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, found {kernel_size}")
        if groups not in (1, c_in) or (groups > 1 and c_out != c_in):
            raise ValueError(f"groups: expected 1, or {c_in} of as many channels, found {groups}")
        common = dict(stride=stride, dilation=dilation, groups=groups, bias=bias)
        super().__init__(c_in, c_out, kernel_size, **common)  # type: ignore[arg-type]
        full = dilation * (kernel_size // 2)
        self.lost = 0 if padding is None else full - padding  # of the resolution, on each side

    def forward(
        self, x: Tensor, kernel: Sizes | None = None, channels: int | None = None
    ) -> Tensor:
        depthwise, c_in = self.groups > 1, x.size(1)
        c_out = c_in if depthwise else channels or self.out_channels
        full, size = self.kernel_size[0], kernel.largest if kernel else self.kernel_size[0]
        (centre,) = centred([size], full)
        weight = self.weight[:c_out, : 1 if depthwise else c_in][centre]
        if kernel is not None:
            weight = weight * kernel_survival(kernel).to(weight.dtype)
        bias = None if self.bias is None else self.bias[:c_out]
        padding = self.dilation[0] * (size // 2) - self.lost
        return F.conv2d(
            x, weight, bias, self.stride, padding, self.dilation, c_in if depthwise else 1
        )


def kernel_survival(kernel: Sizes) -> Tensor:
    """(largest, largest): the sum of the gates of the kernels that hold each element, or 0-dim for
    one kernel."""
    if len(kernel.active) == 1:
        return kernel.gates[kernel.active[0]]
    sizes = tuple(kernel.sizes[o] for o in kernel.active)
    inside = _squares(sizes, kernel.gates.device).to(kernel.gates.dtype)
    return torch.einsum("o,oij->ij", torch.stack([kernel.gates[o] for o in kernel.active]), inside)


@cache
def _squares(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """(O, largest, largest): 1 in the centre of each size."""
    full = max(sizes)
    found = torch.zeros(len(sizes), full, full, device=device)
    for square, (_, _, rows, columns) in zip(found, centred(sizes, full), strict=True):
        square[rows, columns] = 1
    return found


class EntangledLinear(nn.Linear):
    """A linear layer of the largest widths.

    forward: x (..., C) with the first C input features, the largest number of output features
    that is wanted -> (..., features).
    """

    def forward(self, x: Tensor, features: int | None = None) -> Tensor:
        return part(self, x, features or self.out_features)


def part(linear: nn.Linear, x: Tensor, features: int) -> Tensor:
    """The first outputs of a linear layer for its first inputs: x (..., C) -> (..., features)."""
    bias = None if linear.bias is None else linear.bias[:features]
    return F.linear(x, linear.weight[:features, : x.size(-1)], bias)


class EntangledBatchNorm2d(nn.BatchNorm2d):
    """A batch norm of the first C channels of x (B, C, H, W): their part of scale, shift and
    running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        c = x.size(1)
        training = self.training or not self.track_running_stats
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(
            x,
            None if mean is None else mean[:c],
            None if var is None else var[:c],
            None if self.weight is None else self.weight[:c],
            None if self.bias is None else self.bias[:c],
            training,
            self.momentum or 0.0,
            self.eps,
        )


class EntangledLayerNorm(nn.Module):
    """The mixture of the layer norms of all widths, each with the statistics of its own features.

    forward: x (..., C), the sizes of its last axis -> (..., largest):

        y_r = sum over e > r of g_e (gamma_r (x_r - mean_e) / sqrt(var_e + eps) + beta_r)

    so the result is gated already. `centre=False` is RMSNorm: no mean, no beta. Statistics are
    sums over the parts between two sizes, of x less its mean over all features, in float32 or
    better. A size that runs alone has torch's own norm.
    """

    def __init__(self, features: int, *, eps: float = 1e-5, bias: bool = True, centre: bool = True):
        super().__init__()
        self.eps, self.centre = eps, centre
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features)) if bias and centre else None

    def forward(self, x: Tensor, sizes: Sizes) -> Tensor:
        x, dtype, e = x[..., : sizes.largest], x.dtype, sizes.largest
        if len(sizes.active) == 1 and self.centre:  # by torch's own norm
            bias = None if self.bias is None else self.bias[:e]
            y = F.layer_norm(x, (e,), self.weight[:e], bias, self.eps)
            return y * sizes.gates[sizes.active[0]].to(dtype)
        x = x.float() if dtype in (torch.float16, torch.bfloat16) else x
        if self.centre:
            x = x - x.mean(-1, keepdim=True)
        limits, gates = _by_size(sizes)
        parts = [(p.sum(-1), p.square().sum(-1)) for p in x.split(_steps(limits), -1)]
        total, squares = (torch.stack(sums, -1).cumsum(-1) for sums in zip(*parts, strict=True))
        counts = _numbers(tuple(limits), x.device).to(x.dtype)  # (O,)
        mean = total / counts if self.centre else torch.zeros_like(total)
        inverse = (squares / counts - mean.square() + self.eps).rsqrt() * gates.to(x.dtype)
        scale, shift = _above(inverse, limits), _above(inverse * mean, limits)
        y = self.weight[: x.size(-1)] * (x * scale - shift)
        if self.bias is not None:
            y = y + self.bias[: x.size(-1)] * _above(gates, limits)
        return y.to(dtype)


def _by_size(sizes: Sizes) -> tuple[list[int], Tensor]:
    """The sizes that run, ascending, and their gates."""
    order = sorted(sizes.active, key=lambda o: sizes.sizes[o])
    return [sizes.sizes[o] for o in order], torch.stack([sizes.gates[o] for o in order])


@cache
def _numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)


def _steps(limits: Sequence[int]) -> list[int]:
    return [b - a for a, b in zip([0, *limits], limits, strict=False)]


def _above(values: Tensor, limits: Sequence[int]) -> Tensor:
    """values (..., O) by ascending size -> (..., largest): the sum over the sizes above each
    index."""
    sums = values.flip(-1).cumsum(-1).flip(-1)
    parts = [
        sums[..., o : o + 1].expand(*sums.shape[:-1], step) for o, step in enumerate(_steps(limits))
    ]
    return torch.cat(parts, -1)
