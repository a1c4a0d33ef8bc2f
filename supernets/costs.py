"""Parameters and multiply-accumulates of a network, counted without computing anything."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from supernets.mixture import Mixture
from supernets.network import Network


def parameters(net: nn.Module) -> int:
    """Trainable scalars (batch-norm scale and shift included), an auxiliary head left out."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith("auxiliary."))


def macs(net: Network, mixture: Mixture | None = None) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image, in eval mode.

    A convolution counts out elements * in/groups * kernel area, a linear layer in * out. Bias
    additions, batch norm, pooling and sums count nothing.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * module.in_channels // module.groups * kernel
        elif isinstance(module, nn.Linear):
            total += module.in_features * output.numel()

    counted = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_hook(count) for module in counted]
    ghosts = {name: t.to("meta") for name, t in (*net.named_parameters(), *net.named_buffers())}
    image = torch.empty(1, *net.space.input_shape, device="meta")
    training = net.training
    try:
        with torch.no_grad():
            functional_call(
                net.eval(), ghosts, (image, None if mixture is None else _ghost(mixture))
            )
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return total


def _ghost(mixture: Mixture) -> Mixture:
    """The mixture with shapes only."""
    groups = {}
    for name, part in mixture.groups.items():
        factors = None if part.factors is None else part.factors.to("meta")
        groups[name] = part._replace(gates=part.gates.to("meta"), factors=factors)
    return Mixture(groups)
