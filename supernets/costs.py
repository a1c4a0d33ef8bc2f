"""Parameters and multiply-accumulates of a network, counted without computing anything."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.choice import Choice
from supernets.mixture import GroupMixture, Mixture
from supernets.network import Network, Place

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
        pass_of_shapes(net, inputs)
    return counter.get_total_flops() // 2


def check_shapes(net: Network) -> None:
    """Raises ValueError if an option of a supernet does not give maps of the channels and the size
    that its row wants."""
    choices, checked = net.space.choices, set()
    nothing = Mixture({name: _nothing(choice) for name, choice in choices.items()})
    for place, (B, C, H, W) in inputs(net, nothing):
        names, s = choices[place.choice].rows[place.row].names, place.stride
        if (key := (names, place.c_out, s, C, H, W)) in checked:
            continue
        checked.add(key)
        x, gates = torch.empty(B, C, H, W, device="meta"), torch.empty(len(names), device="meta")
        wanted = (B, place.c_out, -(-H // s), -(-W // s))
        for o, name in enumerate(names):
            try:
                y = pass_of_shapes(place.module, (x, gates, [o]))
                fits, found = y is None or y.shape == wanted, "" if y is None else str([*y.shape])
            except RuntimeError as error:
                fits, found = False, f"an error ({str(error).splitlines()[0]})"
            if not fits:
                raise ValueError(
                    f"candidates: '{name}' in row {choices[place.choice].rows[place.row].name} of "
                    f"'{place.choice}' makes {found} of {[B, C, H, W]}, expected {[*wanted]}; "
                    "leave it out there, or mend it"
                )


def pass_of_shapes(net: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The result of one pass in eval mode of shapes alone."""
    ghosts = {name: t.to("meta") for name, t in (*net.named_parameters(), *net.named_buffers())}
    training = net.training
    try:
        with torch.no_grad():
            return functional_call(net.eval(), ghosts, inputs)
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
    """Multiply-accumulates of each option for one image: choice -> (R, O) int64.

    They are counted by running a mixed op with one option, and added up over the layers that share
    the choice; equal mixed ops with equal inputs are counted once, and so is a network. Padding
    costs 0. Where costs do not add up, an option's are those of all that depends on its row, beside
    the last options of the others. The tables are kept and shared: callers must not change them.
    """
    if net not in _counted:
        adds_up = net.space.costs_add_up
        _counted[net] = _count_options(net) if adds_up else _beside_the_last(net)
    return _counted[net]


def expected_macs(
    net: Network, gates: Mapping[str, Tensor], tables: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Multiply-accumulates for one image, 0-dim and differentiable, if each row draws its option by
    these probabilities, choice -> (R, O). The fixed parts count only where costs do not add up.

    tables: those of `candidate_macs`, on the gates' device, where a pass must not copy them.
    """
    if not net.space.costs_add_up:
        return net.expected_macs(gates)
    tables = candidate_macs(net) if tables is None else tables
    return torch.stack(
        [(gates[name] * t.to(gates[name])).sum() for name, t in tables.items()]
    ).sum()


def _beside_the_last(net: Network) -> dict[str, Tensor]:
    """The derivative of the expected costs where every row draws its last option: they are linear
    in the probabilities of each row."""
    last = {}
    for name, choice in net.space.choices.items():
        index = torch.tensor([len(row.options) - 1 for row in choice.rows])
        last[name] = F.one_hot(index, choice.width).double().requires_grad_()
    found = torch.autograd.grad(net.expected_macs(last), list(last.values()))
    return {name: table.round().long() for name, table in zip(last, found, strict=True)}


def _count_options(net: Network) -> dict[str, Tensor]:
    choices = net.space.choices
    found = {n: torch.zeros(len(c.rows), c.width, dtype=torch.long) for n, c in choices.items()}
    known: dict[tuple[Any, ...], Tensor] = {}
    nothing = Mixture({name: _nothing(choice) for name, choice in choices.items()})
    for place, x in inputs(net, nothing):
        names = choices[place.choice].rows[place.row].names
        key = (names, place.c_out, place.stride, x)
        if key not in known:
            image, gates = torch.empty(x, device="meta"), torch.empty(len(names), device="meta")
            counts = [macs_of(place.module, (image, gates, [o])) for o in range(len(names))]
            known[key] = torch.tensor(counts)
        found[place.choice][place.row, : len(names)] += known[key]
    return found


def inputs(net: Network, mixture: Mixture | None) -> list[tuple[Place, torch.Size]]:
    """Every place of every row, and the shape (1, C, H, W) of its input, in a pass of shapes alone.

    mixture: on `meta`; None for a final network.
    """
    shapes: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        shapes[module] = given[0].shape

    places = list(net.places())
    if not places:
        return []
    hooks = [place.module.register_forward_pre_hook(note) for place in places]
    try:
        pass_of_shapes(net, (torch.empty(1, *net.space.input_shape, device="meta"), mixture))
    finally:
        for hook in hooks:
            hook.remove()
    return [(place, shapes[place.module]) for place in places]


def _nothing(choice: Choice) -> GroupMixture:
    """A mixture, with shapes only, in which no option runs: every row still gets its input."""
    gates = torch.empty(len(choice.rows), choice.width, device="meta")
    return GroupMixture(gates, None, [()] * len(choice.rows))
