"""The unrolled bilevel gradient. Liu et al. 2019, arXiv:1806.09055, eq. 7 and 8.

g = grad_a L_val(w', a) - xi * d/da <grad_w L_train(w, a), v>,  v = grad_w' L_val(w', a),
with one virtual SGD step w' = w - xi * (momentum * buffer + grad_w L_train + weight_decay * w).
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from search_spaces.ops import Noise
from search_spaces.settings import Positive
from strategies.update.first_order import FirstOrder
from supernets.forms import twice_differentiable

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy
    from supernets.mixture import Mixture

LossOfWeights = Callable[[Sequence[Tensor]], Tensor]


class SecondOrder(FirstOrder):
    """The first-order weight step; alphas descend through one virtual step of the weights.

    Args:
        hessian: `exact` differentiates twice; `finite_difference` is the paper's eq. 8.
        radius: of the finite difference; 0.01 in the paper. At 0.01, a net with ReLUs and max pools
            has many kinks within the radius, and the result can be far from the gradient; at 1e-6
            in float64 both forms agree to 1e-8 (tests/archsmith/search/test_search.py).

    Raises:
        ValueError: an unknown `hessian`, a radius that is not positive, weights not updated by SGD,
            or finite differences with a relaxation that samples its gates.
    """

    other_weights = True  # those of the virtual step

    def __init__(self, hessian: Literal["finite_difference", "exact"], radius: Positive):
        self.hessian, self.radius = hessian, radius
        self.optimizer: torch.optim.Optimizer | None = None

    def setup(self, net: nn.Module, strategy: "Strategy") -> None:
        if not isinstance(strategy.weight_optimizer, torch.optim.SGD):
            raise ValueError(
                "second_order unrolls an SGD step, found "
                f"{type(strategy.weight_optimizer).__name__}; set strategy/weight_optimizer=sgd"
            )
        self.optimizer = strategy.weight_optimizer
        for name, draws in (
            (f"relaxation {type(strategy.relaxation).__name__}", strategy.relaxation.samples),
            (
                f"topology {type(strategy.topology).__name__}",
                strategy.topology is not None and strategy.topology.samples,
            ),
            ("the candidate noise", any(isinstance(layer, Noise) for layer in net.modules())),
        ):
            if self.hessian == "finite_difference" and draws:
                raise ValueError(
                    "hessian: finite_difference compares passes of equal gates, found "
                    f"{name}, which draws new ones for every pass; set hessian to exact"
                )

    def constants(self) -> Hashable:
        """The virtual step's settings; its learning rate changes with every epoch."""
        assert self.optimizer is not None
        (group,) = self.optimizer.param_groups
        moving = any("momentum_buffer" in state for state in self.optimizer.state.values())
        return (moving, *(group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")))

    def alpha_gradients(
        self, strategy: "Strategy", net: nn.Module, train: "Batch", val: "Batch"
    ) -> Tensor:
        weights = {id(weight) for weight in strategy.weights}  # pruning removes some
        names = [name for name, weight in net.named_parameters() if id(weight) in weights]

        def loss_on(batch: "Batch", role: str) -> LossOfWeights:
            def loss(weights: Sequence[Tensor]) -> Tensor:
                replaced = dict(zip(names, weights, strict=True))

                def logits(x: Tensor, mixture: "Mixture") -> Tensor:
                    return functional_call(net, replaced, (x, mixture))

                return strategy.loss(logits, batch, role)[0]

            return loss

        arch = strategy.arch_parameters()
        val_loss, gradients = unrolled_gradient(
            loss_on(train, "train"),
            loss_on(val, "val"),
            arch,
            strategy.weight_optimizer,
            hessian=self.hessian,
            radius=self.radius,
        )
        for parameter, gradient in zip(arch, gradients, strict=True):
            parameter.grad = gradient
        return val_loss


def unrolled_gradient(
    train_loss: LossOfWeights,
    val_loss: LossOfWeights,
    arch: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    hessian: str,
    radius: float,
) -> tuple[Tensor, list[Tensor]]:
    """The validation loss after the virtual step, and its total gradient in `arch`; changes
    nothing.

    Both losses are functions of the weights of `optimizer` (SGD, one group), whose current
    learning rate is xi. Momentum buffer and weight decay move w' but do not depend on the alphas,
    so they have no second term.
    """
    (group,) = optimizer.param_groups
    weights = group["params"]
    # A Nesterov step goes (1 + momentum) times as far along the gradient.
    xi = group["lr"] * (1 + group["momentum"] * bool(group["nesterov"]))

    with twice_differentiable(hessian == "exact"):
        loss = train_loss(weights)
    gradients = torch.autograd.grad(
        loss, weights, create_graph=hessian == "exact", materialize_grads=True
    )
    ahead = _virtual_step(optimizer, gradients)
    loss = val_loss(ahead)
    found = torch.autograd.grad(loss, [*arch, *ahead], materialize_grads=True)
    direct, v = found[: len(arch)], found[len(arch) :]
    implicit = HESSIANS[hessian](train_loss, arch, weights, gradients, v, radius)
    return loss, [d - xi * h for d, h in zip(direct, implicit, strict=True)]


@torch.no_grad()
def _virtual_step(optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor]) -> list[Tensor]:
    """Weights after one SGD step with these gradients, as new leaves."""
    (group,) = optimizer.param_groups
    momentum, ahead = group["momentum"], []
    for w, g in zip(group["params"], gradients, strict=True):
        step = g + group["weight_decay"] * w
        buffer = optimizer.state[w].get("momentum_buffer") if w in optimizer.state else None
        moved = step if buffer is None else step + momentum * buffer
        if group["nesterov"]:
            moved = step + momentum * moved
        ahead.append((w - group["lr"] * moved).requires_grad_())
    return ahead


def _exact(
    train_loss: LossOfWeights,
    arch: Sequence[Tensor],
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    v: Sequence[Tensor],
    radius: float,
) -> Sequence[Tensor]:
    """d/da <grad_w L_train(w, a), v> by differentiating the training gradient again."""
    pairs = [(g, u) for g, u in zip(gradients, v, strict=True) if g.requires_grad]
    return torch.autograd.grad(
        [g for g, _ in pairs], arch, [u for _, u in pairs], materialize_grads=True
    )


def _finite_difference(
    train_loss: LossOfWeights,
    arch: Sequence[Tensor],
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    v: Sequence[Tensor],
    radius: float,
) -> Sequence[Tensor]:
    """Eq. 8: central difference of grad_a L_train around w (not w'), eps = radius / ||v||."""
    eps = radius / torch.cat([u.flatten() for u in v]).norm().clamp_min(1e-12)
    sides = []
    for sign in (1.0, -1.0):
        moved = [w.detach() + sign * eps * u for w, u in zip(weights, v, strict=True)]
        sides.append(torch.autograd.grad(train_loss(moved), arch, materialize_grads=True))
    return [(plus - minus) / (2 * eps) for plus, minus in zip(*sides, strict=True)]


HESSIANS = {"exact": _exact, "finite_difference": _finite_difference}
