"""Removes the weights of dead candidates, and their moments, from the weight optimiser."""

from typing import TYPE_CHECKING

from torch import Tensor

from supernets.mixed_op import MixedOp

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network


def release(net: "Network", strategy: "Strategy") -> None:
    """Removes what is dead in `strategy.alive`. The supernet keeps the weights."""
    dead = {id(weight) for weight in dead_weights(net, strategy.alive)}
    optimizer = strategy.weight_optimizer
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in dead]
    for weight in strategy.weights:
        if id(weight) in dead:
            optimizer.state.pop(weight, None)
            weight.grad = None
    strategy.weights = [p for p in strategy.weights if id(p) not in dead]


def dead_weights(net: "Network", alive: dict[str, Tensor]) -> list[Tensor]:
    """The parameters of dead candidates, in mixed ops that hold candidates separately."""
    found: list[Tensor] = []
    for place in net.places():
        on = alive[place.choice][place.row].tolist()
        for mixed in place.module.modules():
            if isinstance(mixed, MixedOp):
                dead = [op for op, lives in zip(mixed.ops, on, strict=False) if not lives]
                found += [weight for op in dead for weight in op.parameters()]
    return found
