"""Two copies of the weights share one architecture and take turns. RARTS.

Source: Xue et al. 2022, arXiv:2008.03901. We could read its abstract only: two networks with
weights of their own, each trained on its half of the images, and no second derivatives. The
objective and the order of the updates are our reconstruction.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from search_spaces.settings import NotNegative, Positive
from strategies.contracts import Update
from strategies.optimizer_state import load_named_state, named_state
from supernets.frozen import frozen_statistics, unread_statistics, without_gradients

if TYPE_CHECKING:
    from strategies.gradients import Batch, Metrics
    from strategies.strategy import Logits, Strategy


class Relaxed(Update):
    """Descends on L(w, y, a) = L_val(y, a) + train_weight L_train(w, a) + coupling/2 ||y - w||^2.

    w are the supernet's weights, trained on train images; y is their copy, trained on val images,
    with batch-norm statistics and moments of its own; a are alphas and betas. Each step uses the
    newest values of the others (Gauss-Seidel): w, then y, then a, by the gradients of both losses
    one after the other, so memory is that of one pass. Measured is w. In a warm-up, which has no
    val images, w is trained alone and y stays its copy.

    Args:
        train_weight, coupling: the factors above.
        reuse: whether a descends by gradients that are computed together with those of w and y, at
            their old values. That is two passes fewer, and has the same fixed point.
    """

    two_level = True
    other_weights = True  # the copy
    averages = True

    def __init__(self, train_weight: Positive, coupling: NotNegative, reuse: bool):
        self.train_weight, self.coupling, self.reuse = train_weight, coupling, reuse

    def setup(self, net: nn.Module, strategy: "Strategy") -> None:
        self.copy = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters()}
        self.buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        self.optimizer = strategy.make_weight_optimizer(list(self.copy.values()))

    def step(
        self,
        strategy: "Strategy",
        net: nn.Module,
        train: "Batch",
        val: "Batch | None",
        *,
        move_alphas: bool,
    ) -> "Metrics":
        """Returns 0-dim `train_loss`, `train_accuracy` and, with val images, those of `val`."""
        strategy.alpha_optimizer.zero_grad()
        arch = strategy.arch_parameters() if move_alphas else []
        fit = partial(self._fit, strategy, arch if self.reuse else [])
        metrics = fit("train", net, train)
        if val is None:
            self._copy_again(net)
            return metrics
        metrics |= fit("val", self.copied(net), val)
        if arch and not self.reuse:
            compute = partial(self._alpha_pass, strategy, net)
            strategy.gradients("alphas", compute, [train, val], arch)
        if arch:
            strategy.alpha_optimizer.step()
        return metrics

    def constants(self) -> Hashable | None:
        """With `reuse`, gradients of the alphas are added to those of an earlier pass."""
        return None if self.reuse else ()

    def copied(self, net: nn.Module) -> "Logits":
        """The supernet with weights and statistics of the copy."""
        return lambda x, mixture: functional_call(net, self.copy | self.buffers, (x, mixture))

    def _fit(
        self, strategy: "Strategy", early: list[nn.Parameter], role: str, net: "Logits", batch: Any
    ) -> "Metrics":
        """A step of w on train images, or of y on val images; adds to the gradients of `early`."""
        names = {id(p): name for name, p in strategy.net.named_parameters()}
        w, y = strategy.weights, [self.copy[names[id(p)]] for p in strategy.weights]
        mine, others = (w, y) if role == "train" else (y, w)
        optimizer = strategy.weight_optimizer if role == "train" else self.optimizer
        for group, given in zip(
            self.optimizer.param_groups, strategy.weight_optimizer.param_groups, strict=True
        ):
            group |= {key: value for key, value in given.items() if key != "params"}
        optimizer.zero_grad()
        compute = partial(self._gradients, strategy, net, role, [*mine, *early])
        with unread_statistics(strategy.net):
            metrics = strategy.gradients(f"weights, {role}", compute, [batch], [*mine, *early])
        if self.coupling:
            self._couple(mine, others)
        if strategy.clip is not None:
            nn.utils.clip_grad_norm_(mine, strategy.clip)
        optimizer.step()
        return metrics

    def _gradients(
        self,
        strategy: "Strategy",
        net: "Logits",
        role: str,
        wanted: Sequence[Tensor],
        batch: "Batch",
    ) -> "Metrics":
        """Adds the gradients of the weighed loss of this role to `wanted`."""
        loss, logits = strategy.loss(net, batch, role)
        weight = self.train_weight if role == "train" else 1.0
        (weight * loss).backward(inputs=list(wanted))
        accuracy = (logits.argmax(1) == batch[1]).float().mean()
        return {f"{role}_loss": loss.detach(), f"{role}_accuracy": accuracy}

    @torch.no_grad()
    def _couple(self, mine: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        """Adds the gradient of coupling/2 ||y - w||^2, also where the loss has none."""
        for p, other in zip(mine, others, strict=True):
            pull = self.coupling * (p - other)
            p.grad = pull if p.grad is None else p.grad + pull

    def _alpha_pass(
        self, strategy: "Strategy", net: nn.Module, train: "Batch", val: "Batch"
    ) -> "Metrics":
        arch = strategy.arch_parameters()
        with frozen_statistics(net), without_gradients([*strategy.weights, *self.copy.values()]):
            self._gradients(strategy, net, "train", arch, train)
            return self._gradients(strategy, self.copied(net), "val", arch, val)

    @torch.no_grad()
    def _copy_again(self, net: nn.Module) -> None:
        mine = self.copy | self.buffers
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            mine[name].copy_(tensor)
        self.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        names = {id(tensor): name for name, tensor in self.copy.items()}
        weights = {name: tensor.detach() for name, tensor in self.copy.items()}
        moments = named_state(self.optimizer, names)
        return {"weights": weights, "buffers": self.buffers, "optimizer": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for mine, saved in ((self.copy, state["weights"]), (self.buffers, state["buffers"])):
                for name, value in saved.items():
                    mine[name].copy_(value)
        names = {id(tensor): name for name, tensor in self.copy.items()}
        load_named_state(self.optimizer, names, state["optimizer"])
