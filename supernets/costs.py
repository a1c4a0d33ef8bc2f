"""Parameters and multiply-accumulates of a network, counted without computing anything."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.space import Cell
from supernets.mixture import GroupMixture, Mixture
from supernets.network import CellModule, Network

# What `candidate_macs` found: a loss and a stopping rule ask for the same network.
_counted: WeakKeyDictionary[Network, dict[str, Tensor]] = WeakKeyDictionary()


def parameters(net: nn.Module) -> int:
    """Trainable scalars (batch-norm scale and shift included), an auxiliary head left out."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith("auxiliary."))


def macs(net: Network, mixture: Mixture | None = None) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image, in eval mode.

    Bias additions, batch norm, pooling and sums count nothing.
    """
    image = torch.empty(1, *net.space.input_shape, device="meta")
    return macs_of(net, (image, None if mixture is None else _ghost(mixture)))


def macs_of(net: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Those of one pass of any module in eval mode; the inputs are on `meta`.

    Half of what torch's own counter finds in the operators that run, whatever modules or functions
    call them: attention counts, too.
    """
    with FlopCounterMode(display=False) as counter:
        _run(net, inputs)
    return counter.get_total_flops() // 2


def _run(net: nn.Module, inputs: tuple[Any, ...]) -> None:
    """One pass in eval mode of shapes alone."""
    ghosts = {name: t.to("meta") for name, t in (*net.named_parameters(), *net.named_buffers())}
    training = net.training
    try:
        with torch.no_grad():
            functional_call(net.eval(), ghosts, inputs)
    finally:
        net.train(training)


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
    group; edges of equal candidates, stride and input are counted once, and so is a network.
    Padding costs 0. The tables are kept and shared: callers must not change them.
    """
    if net not in _counted:
        _counted[net] = _count_candidates(net)
    return _counted[net]


def _count_candidates(net: Network) -> dict[str, Tensor]:
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
        image = torch.empty(1, *net.space.input_shape, device="meta")
        _run(net, (image, Mixture({name: _nothing(cell) for name, cell in cells.items()})))
    finally:
        for hook in hooks:
            hook.remove()
    known: dict[tuple[Any, ...], Tensor] = {}
    for group, e, edge, mixed in edges:
        x, gates = inputs[mixed], torch.empty(cells[group].width, device="meta")
        key = (edge.candidates, edge.strided, x.shape)
        if key not in known:
            known[key] = torch.tensor(
                [macs_of(mixed, (x, gates, [o])) for o in range(len(edge.candidates))]
            )
        found[group][e, : len(edge.candidates)] += known[key]
    return found


def _nothing(cell: Cell) -> GroupMixture:
    """A mixture, with shapes only, in which no candidate runs: every edge still gets its input."""
    gates = torch.empty(len(cell.edges), cell.width, device="meta")
    return GroupMixture(gates, None, [()] * len(cell.edges))
