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
from supernets.gpu import launches

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy
    from supernets.mixture import Mixture

LossOfWeights = Callable[[Sequence[Tensor]], Tensor]


class SecondOrder(FirstOrder):
    """The first-order weight step; alphas descend through one virtual step of the weights.

    Args:
        hessian: `exact` differentiates twice; `finite_difference` is the paper's eq. 8. `auto` is
            the latter on a GPU, unless something draws or there is a regularisation, else exact.
        radius: of the finite difference; 0.01 in the paper. At 0.01, a net with ReLUs and max pools
            has many kinks within the radius, and the result can be far from the gradient; at 1e-6
            in float64 both forms agree to 1e-8 (tests/archsmith/search/test_search.py).

    Raises:
        ValueError: an unknown `hessian`, a radius that is not positive, weights not updated by SGD,
            or finite differences with a relaxation that samples its gates.
    """

    other_weights = True  # those of the virtual step

    def __init__(self, hessian: Literal["auto", "finite_difference", "exact"], radius: Positive):
        self.hessian: str = hessian
        self.radius = radius
        self.optimizer: torch.optim.Optimizer | None = None
        self.rates: Tensor | None = None  # of the virtual step and xi, (2,), for captured passes

    def setup(self, net: nn.Module, strategy: "Strategy") -> None:
        if not isinstance(strategy.weight_optimizer, torch.optim.SGD):
            raise ValueError(
                "second_order unrolls an SGD step, found "
                f"{type(strategy.weight_optimizer).__name__}; set strategy/weight_optimizer=sgd"
            )
        self.optimizer = strategy.weight_optimizer
        parts = {"relaxation": strategy.relaxation, "topology": strategy.topology}
        drawing = [
            f"{kind} {type(part).__name__}"
            for kind, part in parts.items()
            if part is not None and part.samples
        ]
        if any(isinstance(layer, Noise) for layer in net.modules()):
            drawing.append("the candidate noise")
        if self.hessian == "auto":
            equal = not drawing and strategy.regularisation is None
            on_gpu = launches(next(net.parameters()).device)
            self.hessian = "finite_difference" if equal and on_gpu else "exact"
        if self.hessian == "finite_difference" and drawing:
            raise ValueError(
                "hessian: finite_difference compares passes of equal gates, found "
                f"{drawing[0]}, which draws new ones for every pass; set hessian to exact"
            )

    def constants(self) -> Hashable:
        """The virtual step's settings; its learning rate is a tensor."""
        assert self.optimizer is not None
        (group,) = self.optimizer.param_groups
        moving = any("momentum_buffer" in state for state in self.optimizer.state.values())
        return (moving, *(group[key] for key in ("momentum", "nesterov", "weight_decay")))

    def alpha_step(
        self, strategy: "Strategy", net: nn.Module, train: "Batch", val: "Batch | None"
    ) -> dict[str, Tensor]:
        if self.rates is None:
            self.rates = strategy.weights[0].detach().new_empty(2)
        for rate, value in zip(self.rates, rates_of(strategy.weight_optimizer), strict=True):
            rate.fill_(value)
        return super().alpha_step(strategy, net, train, val)

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
            rates=self.rates,
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
    rates: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """The validation loss after the virtual step, and its total gradient in `arch`; changes
    nothing.

    Both losses are functions of the weights of `optimizer` (SGD, one group), whose current
    learning rate is xi. Momentum buffer and weight decay move w' but do not depend on the alphas,
    so they have no second term.

    rates: what `rates_of` says, as a tensor (2,) that a captured pass reads; None: as it says.
    """
    (group,) = optimizer.param_groups
    weights = group["params"]
    lr, xi = rates_of(optimizer) if rates is None else rates

    with twice_differentiable(hessian == "exact"):
        loss = train_loss(weights)
    gradients = torch.autograd.grad(
        loss, weights, create_graph=hessian == "exact", materialize_grads=True
    )
    ahead = _virtual_step(optimizer, gradients, lr)
    loss = val_loss(ahead)
    found = torch.autograd.grad(loss, [*arch, *ahead], materialize_grads=True)
    direct, v = found[: len(arch)], found[len(arch) :]
    implicit = HESSIANS[hessian](train_loss, arch, weights, gradients, v, radius)
    return loss, [d - xi * h for d, h in zip(direct, implicit, strict=True)]


def rates_of(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """The learning rate, and xi: a Nesterov step goes (1 + momentum) times as far along the
    gradient."""
    (group,) = optimizer.param_groups
    return group["lr"], group["lr"] * (1 + group["momentum"] * bool(group["nesterov"]))


@torch.no_grad()
def _virtual_step(
    optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor], lr: float | Tensor
) -> list[Tensor]:
    """Weights after one SGD step with these gradients, as new leaves."""
    (group,) = optimizer.param_groups
    weights, momentum, state = group["params"], group["momentum"], optimizer.state
    decay = torch._foreach_mul(weights, group["weight_decay"])
    step = torch._foreach_add(list(gradients), decay)
    moved = list(step)
    buffers = {
        i: state[w]["momentum_buffer"]
        for i, w in enumerate(weights)
        if w in state and state[w].get("momentum_buffer") is not None
    }
    if buffers:
        pushes = torch._foreach_mul(list(buffers.values()), momentum)
        pushed = torch._foreach_add([step[i] for i in buffers], pushes)
        for i, push in zip(buffers, pushed, strict=True):
            moved[i] = push
    if group["nesterov"]:
        moved = list(torch._foreach_add(step, torch._foreach_mul(moved, momentum)))
    ahead = torch._foreach_sub(weights, torch._foreach_mul(moved, lr))
    return [w.requires_grad_() for w in ahead]


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
        steps = torch._foreach_mul(list(v), sign * eps)
        moved = torch._foreach_add([w.detach() for w in weights], steps)
        sides.append(torch.autograd.grad(train_loss(moved), arch, materialize_grads=True))
    return [(plus - minus) / (2 * eps) for plus, minus in zip(*sides, strict=True)]


HESSIANS = {"exact": _exact, "finite_difference": _finite_difference}
