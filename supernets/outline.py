"""A final network as a list of layers with their output shapes and costs, of any family."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supernets.costs import parameters, pass_of_shapes
from supernets.network import Network


def outline(net: Network) -> list[dict[str, Any]]:
    """The layers of a final network in the order of their calls, in a pass of shapes alone.

    layer: the module's name. shape: of its output for one image, `[C, H, W]` or `[classes]`.
    parameters, macs: its own, as `supernets.costs` counts them. choices: whose rows it holds.
    """
    choice_of = {place.module: place.choice for place in net.places()}
    found: dict[nn.Module, dict[str, Any]] = {}
    before: list[int] = []

    def enter(module: nn.Module, given: Any) -> None:
        before.append(counter.get_total_flops())

    def leave(module: nn.Module, given: Any, made: Any) -> None:
        macs = (counter.get_total_flops() - before.pop()) // 2
        if module in found:  # it is called again, with the same weights
            found[module]["macs"] += macs
            return
        held = {choice_of[part] for part in module.modules() if part in choice_of}
        shape = list(made.shape[1:]) if isinstance(made, Tensor) else None
        found[module] = {
            "layer": names[module], "shape": shape, "parameters": parameters(module), "macs": macs,
            "choices": sorted(held),
        }  # fmt: skip

    names = {module: name for name, module in _layers(net)}
    hooks = [module.register_forward_pre_hook(enter) for module in names]
    hooks += [module.register_forward_hook(leave) for module in names]
    image = torch.empty(1, *net.space.input_shape, device="meta")
    try:
        with FlopCounterMode(display=False) as counter:
            pass_of_shapes(net, (image, None))
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


def repeats(net: Network) -> dict[str, int]:
    """Choice -> in how many layers of a final network it stands; 1 where rows are no modules."""
    rows = Counter((place.choice, place.row) for place in net.places())
    found = dict.fromkeys(net.space.choices, 1)
    for (choice, _), count in rows.items():
        found[choice] = max(found[choice], count)
    return found


def _layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of a network, and those of lists and of sequences of composite modules in their
    place; what passes its input on is no layer, and neither is an auxiliary head."""
    for name, child in net.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict) or _is_sequence_of_layers(child):
            yield from ((f"{name}.{inner}", layer) for inner, layer in _layers(child))
        elif not isinstance(child, nn.Identity) and name != "auxiliary":
            yield name, child


def _is_sequence_of_layers(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and any(
        True for child in module for _ in child.children()
    )
