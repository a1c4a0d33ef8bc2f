"""Parameters and multiply-accumulates of a network, counted without computing anything."""

import copy

import torch
from torch import nn

from supernets.mixture import Mixture
from supernets.network import Network


def parameters(net: nn.Module) -> int:
    """Trainable scalars (batch-norm scale and shift included), an auxiliary head left out."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith("auxiliary."))


def macs(net: Network, mixture: Mixture | None = None) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image, in eval mode.

    No bias additions, no batch norm, pooling or sums: out elements * in/groups * kernel area; in *
        out.
    """
    ghost = copy.deepcopy(net).to("meta").eval()
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * module.in_channels // module.groups * kernel
        elif isinstance(module, nn.Linear):
            total += module.in_features * output.numel()

    for module in ghost.modules():
        module.register_forward_hook(count)
    if mixture is not None:
        mixture = Mixture(
            {
                name: part._replace(
                    gates=part.gates.to("meta"),
                    factors=None if part.factors is None else part.factors.to("meta"),
                )
                for name, part in mixture.groups.items()
            }
        )
    with torch.no_grad():
        ghost(torch.empty(1, *net.space.input_shape, device="meta"), mixture)
    return total
