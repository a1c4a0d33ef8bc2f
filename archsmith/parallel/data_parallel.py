"""Data parallelism: each process computes its share of the images, and all get the same result.

State is replicated: weights, gates and images are equal on all processes. There are two ways to
compute a pass:

- jointly (`joint_pass`): every process gets the logits of all images. So losses, updates, second
  derivatives and evaluations need no code for several processes.
- apart (`apart`): a process computes loss and gradients of its own images alone, and what calls the
  pass takes the means (`archsmith.parallel.averaged`). One message a pass, none within it.

Batch norms are local by default, each process normalises its own images, and running statistics are
averaged. With `distributed.sync_batch_norm` they use the mean and variance of all images (Ioffe &
Szegedy 2015, arXiv:1502.03167, over the whole batch), and every pass is joint.
torch.nn.SyncBatchNorm needs CUDA and has no second derivative.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from archsmith.parallel import distributed, portions
from archsmith.parallel.global_norm import GlobalNorm
from archsmith.parallel.portions import Portion, least_images
from archsmith.parallel.sums import means, shared, summed
from search_spaces.ops import Noise
from supernets.final import ChosenOps
from supernets.mixture import GroupMixture, Mixture
from supernets.network import CellModule, Logits, Network

_apart: list[list[Tensor]] | None = None  # what passes have moved; None: they are joint


@contextmanager
def apart() -> Iterator[list[list[Tensor]]]:
    """Within, a pass gets only the images of this process, of which all have equally many, and
    sends nothing. Yields a list that gets, for each pass, the running statistics that it moves."""
    global _apart
    moved: list[list[Tensor]] = []
    _apart = moved
    try:
        yield moved
    finally:
        _apart = None


class _Local(nn.Module):
    """The pass of this process alone, as a module, so that its weights can be replaced."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, mixture: Mixture | None) -> Logits:
        return self.net.local(x, mixture)


def joint_pass(net: Network, x: Tensor, mixture: Mixture | None) -> Logits:
    """A pass that all processes compute together, each holding all `x` (B, C, H, W); inside
    `apart`, the pass of this process."""
    if _apart is not None:
        portions.current = Portion.equal(len(x))
        _apart.append(moving_statistics(net))
        return net.local(x, mixture)
    portions.current = portion = Portion.mine(len(x), least_images())
    moved = [] if distributed.sync_batch_norm else moving_statistics(net)
    local = _Local(net)
    names, weights = zip(*local.named_parameters(), strict=True)
    given = dict(zip(names, shared(weights), strict=True))
    part = None if mixture is None else _shared_mixture(mixture)
    logits = functional_call(local, given, (x[portion.start : portion.stop], part))
    parts = (logits,) if isinstance(logits, Tensor) else logits
    wholes = summed([portion.padded(one) for one in parts])
    if moved:
        torch._foreach_copy_([one.data for one in moved], means(moved))  # not seen by autograd
    return wholes[0] if isinstance(logits, Tensor) else (wholes[0], wholes[1])


def moving_statistics(net: nn.Module) -> list[Tensor]:
    """The running statistics that a pass moves now."""
    return [
        buffer
        for norm in net.modules()
        if isinstance(norm, _BatchNorm) and norm.training and norm.track_running_stats
        if norm.momentum != 0.0  # of passes that are computed again
        for buffer in (norm.running_mean, norm.running_var)
        if buffer is not None
    ]


def _shared_mixture(mixture: Mixture) -> Mixture:
    parts = mixture.groups.values()
    made = iter(shared([t for part in parts for t in (part.gates, part.factors)]))
    return Mixture(
        {name: GroupMixture(next(made), next(made), p.active) for name, p in mixture.groups.items()}
    )


class GlobalChosenOps(ChosenOps):
    """Every process draws drop-path for all images and uses the part for its own."""

    def __init__(self, chosen: ChosenOps):
        nn.Module.__init__(self)
        self.ops, self.drop, self.training = chosen.ops, chosen.drop, chosen.training

    def kept(self, x: Tensor) -> Tensor:
        draw = super().kept
        return of_all_images(len(x), lambda images: draw(x.new_empty(images, 1)))

    def constants(self) -> Hashable:
        return ()  # which images are its own follows from their number


class GlobalNoise(Noise):
    """Every process draws noise for all images and uses the part for its own."""

    def __init__(self, noise: Noise):
        nn.Module.__init__(self)
        self.c_out, self.stride, self.training = noise.c_out, noise.stride, noise.training

    def drawn(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        if x.is_meta:
            return super().drawn(x, shape)
        draw = super().drawn
        return of_all_images(len(x), lambda images: draw(x, (images, *shape[1:])))

    def constants(self) -> Hashable:
        return ()  # as above


def of_all_images(images: int, draw: Callable[[int], Tensor]) -> Tensor:
    """What is drawn for all images on every process: the part of this one's images."""
    mine = portions.current
    return draw(mine.total)[mine.start : mine.stop]


def across_processes(net: Network) -> Network:
    """Returns the same network; if there are several processes, they now compute its passes
    together.

    Drop-path, `noise` and, if they are synchronised, batch norms are replaced by those over all
    processes; parameters, buffers and their names are unchanged. With synchronised norms the form
    must be reference or fused.
    """
    if distributed.size() > 1:
        net.joint_pass = joint_pass
        if distributed.sync_batch_norm:
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
