"""A past supernet: copies of weights and mixture, evaluated without a second module."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from supernets.frozen import frozen_statistics
from supernets.mixture import GroupMixture, Mixture

Weights = Mapping[str, Tensor]


class Snapshot(NamedTuple):
    """Weights by name, and the gates they ran with, so that evaluating it samples nothing.

    Batch-norm buffers are not copied: passes that use the batch's statistics do not read them.
    """

    weights: Weights
    mixture: Mixture

    @torch.no_grad()
    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> logits (B, classes). To be called inside `lent(net)`."""
        return functional_call(net, dict(self.weights), (x, self.mixture))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        mixture = {name: part._asdict() for name, part in self.mixture.groups.items()}
        return {"weights": self.weights, "mixture": mixture}

    @classmethod
    def parse(cls, state: Mapping[str, Any], device: torch.device) -> "Snapshot":
        """The inverse of `state_dict`."""
        weights = {name: tensor.to(device) for name, tensor in state["weights"].items()}
        groups = {}
        for name, part in state["mixture"].items():
            factors = None if part["factors"] is None else part["factors"].to(device)
            groups[name] = GroupMixture(part["gates"].to(device), factors, part["active"])
        return cls(weights, Mixture(groups))


def copy_weights(net: nn.Module) -> Weights:
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
    copies = {name: torch.empty_like(weight) for name, weight in weights.items()}
    torch._foreach_copy_(list(copies.values()), list(weights.values()))
    return copies


def copy_mixture(mixture: Mixture) -> Mixture:
    """A detached copy with its own storage, as gates may be a view of an optimised tensor."""
    groups = {}
    for name, (gates, factors, active, _) in mixture.groups.items():
        copied = None if factors is None else factors.detach().clone()
        groups[name] = GroupMixture(gates.detach().clone(), copied, [list(row) for row in active])
    return Mixture(groups)


@torch.no_grad()
def mixture_into(kept: Mixture | None, mixture: Mixture) -> Mixture:
    """As `copy_mixture`, in the tensors of an earlier copy, if there is one."""
    if kept is None:
        return copy_mixture(mixture)
    groups = {}
    for name, (gates, factors, active, _) in mixture.groups.items():
        mine = kept.groups[name]
        mine.gates.copy_(gates)
        if mine.factors is not None and factors is not None:
            mine.factors.copy_(factors)
        groups[name] = mine._replace(active=[list(row) for row in active])
    return Mixture(groups)


@torch.no_grad()
def snapshot_into(kept: Snapshot | None, one: Snapshot) -> Snapshot:
    """A copy of a snapshot, in the tensors of an earlier copy, if there is one."""
    if kept is None:
        weights: Weights = {name: weight.clone() for name, weight in one.weights.items()}
        return Snapshot(weights, copy_mixture(one.mixture))
    torch._foreach_copy_(list(kept.weights.values()), list(one.weights.values()))
    return Snapshot(kept.weights, mixture_into(kept.mixture, one.mixture))


@contextmanager
def lent(net: nn.Module) -> Iterator[None]:
    """A context manager: batch norms use batch statistics and record nothing; all else is in eval
    mode.

    Randomness of training, such as drop-path, is off. Only operations that draw in evaluation too,
    such as `noise`, move the random generators on.
    """
    modes = [(module, module.training) for module in net.modules()]
    for module, training in modes:
        if training != isinstance(module, _BatchNorm):
            module.training = not training
    try:
        with frozen_statistics(net):
            yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training
