"""A supernet as it was: copies of weights and mixture, asked again without a second module."""

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
    """Weights by name, and the gates they ran with: to ask again draws nothing, relaxes nothing.

    Batch-norm buffers are not copied: a pass that uses the batch's statistics does not read them.
    """

    weights: Weights
    mixture: Mixture

    @torch.no_grad()
    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """What it answers to x (B, C, H, W): (B, classes). To be called within `lent(net)`."""
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
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def copy_mixture(mixture: Mixture) -> Mixture:
    """Without its graph, on storage of its own: gates may be a view of what an optimiser moves."""
    groups = {}
    for name, (gates, factors, active) in mixture.groups.items():
        copied = None if factors is None else factors.detach().clone()
        groups[name] = GroupMixture(gates.detach().clone(), copied, [list(row) for row in active])
    return Mixture(groups)


@contextmanager
def lent(net: nn.Module) -> Iterator[None]:
    """Batch norms use the batch, as in training, and record nothing; all else is in eval mode.

    So what is random in training, such as drop-path, is off, and the random stream stands still.
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
