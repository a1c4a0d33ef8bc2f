"""Parameters and multiply-accumulates of a network, counted without computing anything."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from search_spaces.space import Cell
from supernets.mixture import GroupMixture, Mixture
from supernets.network import CellModule, Network


def parameters(net: nn.Module) -> int:
    """Trainable scalars (batch-norm scale and shift included), an auxiliary head left out."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith("auxiliary."))


def macs(net: Network, mixture: Mixture | None = None) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image, in eval mode.

    A convolution counts out elements * in/groups * kernel area, a linear layer in * out. Bias
    additions, batch norm, pooling and sums count nothing.
    """
    image = torch.empty(1, *net.space.input_shape, device="meta")
    return _counted(net, (image, None if mixture is None else _ghost(mixture)))


def _counted(net: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Multiply-accumulates of one pass of a module in eval mode; the inputs are on `meta`."""
    return sum(layer_macs(net, inputs).values())


def layer_macs(net: nn.Module, inputs: tuple[Any, ...]) -> dict[nn.Module, int]:
    """Those of each convolution and linear layer that such a pass runs."""
    found: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            macs = output.numel() * module.in_channels // module.groups * kernel
        else:
            assert isinstance(module, nn.Linear)
            macs = module.in_features * output.numel()
        found[module] = found.get(module, 0) + macs

    counted = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [module.register_forward_hook(count) for module in counted]
    ghosts = {name: t.to("meta") for name, t in (*net.named_parameters(), *net.named_buffers())}
    training = net.training
    try:
        with torch.no_grad():
            functional_call(net.eval(), ghosts, inputs)
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return found


def _ghost(mixture: Mixture) -> Mixture:
    """The mixture with shapes only."""
    groups = {}
    for name, part in mixture.groups.items():
        factors = None if part.factors is None else part.factors.to("meta")
        groups[name] = part._replace(gates=part.gates.to("meta"), factors=factors)
    return Mixture(groups)


def candidate_macs(net: Network) -> dict[str, Tensor]:
    """Multiply-accumulates of each candidate for one image: group -> (E, O) int64.

    They are counted by running a mixed op with one candidate, and added up over the layers of the
    group; edges of equal candidates, stride and input are counted once. Padding costs 0.
    """
    cells = net.space.groups
    found = {n: torch.zeros(len(c.edges), c.width, dtype=torch.long) for n, c in cells.items()}
    inputs: dict[nn.Module, Tensor] = {}

    def note(edge: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs[edge] = given[0]

    edges = [
        (group, e, edge, layer.edges[edge.name])
        for layer, group in zip(net.layers, net.groups, strict=True)
        if group is not None and isinstance(layer, CellModule)
        for e, edge in enumerate(layer.cell.edges)
    ]
    hooks = [mixed.register_forward_pre_hook(note) for _, _, _, mixed in edges]
    try:
        macs(net, Mixture({name: _everything(cell) for name, cell in cells.items()}))
    finally:
        for hook in hooks:
            hook.remove()
    known: dict[tuple[Any, ...], Tensor] = {}
    for group, e, edge, mixed in edges:
        x, gates = inputs[mixed], torch.empty(cells[group].width, device="meta")
        key = (edge.candidates, edge.strided, x.shape)
        if key not in known:
            known[key] = torch.tensor(
                [_counted(mixed, (x, gates, [o])) for o in range(len(edge.candidates))]
            )
        found[group][e, : len(edge.candidates)] += known[key]
    return found


def _everything(cell: Cell) -> GroupMixture:
    """A mixture, with shapes only, in which every candidate runs."""
    gates = torch.empty(len(cell.edges), cell.width, device="meta")
    return GroupMixture(gates, None, [range(len(edge.candidates)) for edge in cell.edges])
