"""Data parallelism: each process computes its share of the images, and all get the same result.

The inputs of a pass (images, weights, gates) are replicated, and every process gets the logits of
all images; only inside the pass are the images split. So losses, updates, second derivatives and
evaluations need no code for several processes. Two operations, each the derivative of the other to
any order, do this:

- `sum_over_processes`: the parts of all processes -> their sum, on each. Its derivative is
  `shared`.
- `shared`: a replicated tensor -> the tensor each uses for its part. Its derivative is
  `sum_over_processes`.

Batch norms use the mean and variance of all images (Ioffe & Szegedy 2015, arXiv:1502.03167, over
the whole batch). torch.nn.SyncBatchNorm needs CUDA and has no second derivative.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from archsmith.parallel import distributed
from search_spaces.ops import Noise
from supernets.chains import LAYERS
from supernets.final import ChosenOps
from supernets.fused import NORMALISATIONS, record_statistics
from supernets.mixture import GroupMixture, Mixture
from supernets.network import CellModule, Logits, Network


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        flat = torch.cat([part.flatten() for part in parts])
        distributed.all_reduce(flat)
        wholes = zip(flat.split([part.numel() for part in parts]), parts, strict=True)
        return tuple(whole.view(part.shape).to(part.dtype) for whole, part in wholes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _applied(_Share, gradients)


class _Share(Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return _applied(_Sum, gradients)


def _applied(function: type[Function], tensors: Iterable[Tensor | None]) -> tuple[Any, ...]:
    """Applies the function to the tensors that are not None; the others have no gradient."""
    tensors = list(tensors)
    made = iter(function.apply(*(t for t in tensors if t is not None)))
    return tuple(None if t is None else next(made) for t in tensors)


def sum_over_processes(part: Tensor) -> Tensor:
    return _Sum.apply(part)[0]


def shared(tensors: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Shares all tensors that need a gradient at once: one message in the backward pass."""
    wanted = [t if t is not None and t.requires_grad else None for t in tensors]
    if not torch.is_grad_enabled() or all(t is None for t in wanted):
        return tuple(tensors)
    made = _applied(_Share, wanted)
    return tuple(t if new is None else new for t, new in zip(tensors, made, strict=True))


class Portion(NamedTuple):
    """The images [start, stop) of `total` that this process computes.

    A batch of fewer images than processes is computed whole by each; `copies` is then the number of
    processes, else 1.
    """

    start: int
    stop: int
    total: int
    copies: int

    @classmethod
    def mine(cls, total: int) -> "Portion":
        rank, size = distributed.rank(), distributed.size()
        if total < size:
            return cls(0, total, total, size)
        each, more = divmod(total, size)
        start = rank * each + min(rank, more)
        return cls(start, start + each + (rank < more), total, 1)

    def whole(self, part: Tensor) -> Tensor:
        """The parts (b, K) of all processes as (B, K), on each."""
        if self.copies > 1:
            return sum_over_processes(part / self.copies)
        return sum_over_processes(F.pad(part, (0, 0, self.start, self.total - self.stop)))

    def gathered(self, images: Tensor) -> Tensor:
        """The images (b, C, H, W) uint8 of all processes as (B, C, H, W), on each."""
        if len(images) == self.total:
            return images
        every = images.new_zeros(self.total, *images.shape[1:])
        every[self.start : self.stop] = images
        distributed.all_reduce(every)
        return every


_now = Portion(0, 0, 0, 1)  # of the current pass


class _Local(nn.Module):
    """The pass of this process alone, as a module, so that its weights can be replaced."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, mixture: Mixture | None) -> Logits:
        return self.net.local(x, mixture)


def joint_pass(net: Network, x: Tensor, mixture: Mixture | None) -> Logits:
    """A pass that all processes compute together; each holds all `x` (B, C, H, W)."""
    global _now
    _now = portion = Portion.mine(len(x))
    local = _Local(net)
    names, weights = zip(*local.named_parameters(), strict=True)
    given = dict(zip(names, shared(weights), strict=True))
    part = None if mixture is None else _shared_mixture(mixture)
    logits = functional_call(local, given, (x[portion.start : portion.stop], part))
    if isinstance(logits, Tensor):
        return portion.whole(logits)
    return portion.whole(logits[0]), portion.whole(logits[1])


def _shared_mixture(mixture: Mixture) -> Mixture:
    parts = mixture.groups.values()
    made = iter(shared([t for part in parts for t in (part.gates, part.factors)]))
    return Mixture(
        {name: GroupMixture(next(made), next(made), p.active) for name, p in mixture.groups.items()}
    )


class GlobalNorm(nn.BatchNorm2d):
    """A batch norm over the images of all processes: (b, C, ...) -> (b, C, ...).

    It takes over the parameters and buffers of the batch norm that it replaces.
    """

    def __init__(self, norm: _BatchNorm):
        stated = norm.affine, norm.track_running_stats, torch.device("meta")
        super().__init__(norm.num_features, norm.eps, norm.momentum, *stated)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.training = norm.training

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # accepts any number of dimensions, like the layer it replaces

    def forward(self, input: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        y, mean, variance = self.normalise(input, self.weight, self.bias)
        if self.training and self.track_running_stats:
            record_statistics([self], [mean], [variance])
        return y

    def normalise(
        self, input: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised images, and the mean and unbiased variance (C,) over all processes.

        Sums over processes use float64, normalisation at least float32.
        """
        x = input.float() if input.dtype.itemsize < 4 else input
        axes = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = (v.double() for v in torch.var_mean(x, axes, correction=0))  # (C,) each
        count = mean.new_full((1,), x.numel() / x.size(1))
        sums = sum_over_processes(torch.cat([mean * count, (var + mean**2) * count, count]))
        sums = shared([sums])[0]
        mean, square = (sums[:-1] / sums[-1]).view(2, -1)
        var = square - mean**2
        scale = (var + self.eps).rsqrt() * (1.0 if weight is None else weight)
        shift = -mean * scale + (0.0 if bias is None else bias)
        shape = [1, -1] + [1] * (x.dim() - 2)
        y = torch.addcmul(shift.to(x).view(shape), x, scale.to(x).view(shape))
        n = sums[-1].detach() / _now.copies
        unbiased = var.detach() * n / (n - 1).clamp_min(1.0)
        return y.to(input.dtype), mean.detach().to(x), unbiased.to(x)


# The fused form runs these layers together, too.
LAYERS[GlobalNorm] = LAYERS[nn.BatchNorm2d]
NORMALISATIONS[GlobalNorm] = GlobalNorm.normalise


class GlobalChosenOps(ChosenOps):
    """Every process draws drop-path for all images and uses the part for its own."""

    def __init__(self, chosen: ChosenOps):
        nn.Module.__init__(self)
        self.ops, self.drop, self.training = chosen.ops, chosen.drop, chosen.training

    def kept(self, x: Tensor) -> Tensor:
        return super().kept(x.new_empty(_now.total, 1))[_now.start : _now.stop]


class GlobalNoise(Noise):
    """Every process draws noise for all images and uses the part for its own."""

    def __init__(self, noise: Noise):
        nn.Module.__init__(self)
        self.c_out, self.stride, self.training = noise.c_out, noise.stride, noise.training

    def drawn(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        if x.is_meta:
            return super().drawn(x, shape)
        return super().drawn(x, (_now.total, *shape[1:]))[_now.start : _now.stop]


def of_all_images(images: int, draw: Callable[[int], Tensor]) -> Tensor:
    """What is drawn for all images on every process: the part of this one's images."""
    return draw(_now.total)[_now.start : _now.stop]


def across_processes(net: Network) -> Network:
    """Returns the same network; if there are several processes, they now compute its passes
    together.

    Its batch norms, drop-path and `noise` are replaced by those over all processes; parameters,
    buffers and their names are unchanged. The form must be reference or fused.
    """
    if distributed.size() > 1:
        net.joint_pass = joint_pass
        replace_modules(net, _BatchNorm, GlobalNorm)
        replace_modules(net, ChosenOps, GlobalChosenOps)
        replace_modules(net, Noise, GlobalNoise)
        for module in net.modules():
            if isinstance(module, CellModule):
                module.for_images = of_all_images
    return net


def replace_modules(
    net: nn.Module, kind: type[nn.Module], replaced: Callable[[Any], nn.Module]
) -> None:
    """Replaces each submodule of a kind, at all its places, under the same names."""
    made: dict[nn.Module, nn.Module] = {}
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if isinstance(module, kind):
            if module not in made:
                made[module] = replaced(module)
            net.set_submodule(name, made[module])
