"""Sharpness of the found minimum, in the alphas and in the weights. Costly, hence optional.

Sources: Zela et al. 2020, arXiv:1909.09656, section 4.1 (the largest eigenvalue of the Hessian of
the validation loss in alpha predicts a collapse); Foret et al. 2021, arXiv:2010.01412, eq. 2
(the increase of the loss at nearby weights, here along the gradient).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from strategies.losses.snapshot import lent
from supernets.forms import twice_differentiable
from supernets.frozen import without_gradients

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy
    from supernets.network import Network

ITERATIONS = 20
TINY = 1e-6  # relative to the largest entry so far: rounding noise of float32 products


def alpha_eigenvalue(net: "Network", strategy: "Strategy", batch: "Batch") -> float:
    """The largest algebraic eigenvalue of the Hessian of the cross-entropy in alphas and betas.

    The Hessian covers all choices together, on one batch, with the batch's own batch-norm
    statistics and without gate noise.
    """
    arch = strategy.arch_parameters()
    with lent(net), without_gradients(strategy.weights), twice_differentiable():
        loss = _loss(net, strategy, batch)
        gradients = torch.autograd.grad(loss, arch, create_graph=True, materialize_grads=True)
    return largest_eigenvalue(gradients, arch)


def largest_eigenvalue(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> float:
    """The largest algebraic eigenvalue of d gradients / d parameters, by the Lanczos iteration.

    At most `ITERATIONS` Hessian-vector products, with full reorthogonalisation. Source: Golub & Van
    Loan 2013, Matrix Computations, section 10.1.
    """
    source = torch.Generator().manual_seed(0)
    v = torch.cat([torch.randn(p.numel(), generator=source) for p in parameters]).double()
    basis, rows = [v / v.norm()], []
    while True:
        product = _product(gradients, parameters, basis[-1])
        rows.append(torch.stack([product @ u for u in basis]))  # a row of the projected Hessian
        for _ in range(2):  # once is not enough in finite precision
            product = product - sum((product @ u) * u for u in basis)
        size = max(float(row.abs().max()) for row in rows)
        if len(basis) == min(ITERATIONS, len(v)) or product.norm() <= TINY * size:
            break
        basis.append(product / product.norm())
    projected = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i, row in enumerate(rows):
        projected[i, : i + 1] = projected[: i + 1, i] = row
    return float(torch.linalg.eigvalsh(projected)[-1])


def _product(gradients: Sequence[Tensor], parameters: Sequence[Tensor], v: Tensor) -> Tensor:
    """H v (A,) in float64 on the CPU; v (A,) is over all parameters, concatenated."""
    parts = v.split([p.numel() for p in parameters])
    pairs = [
        (g, part.view_as(g).to(g))
        for g, part in zip(gradients, parts, strict=True)
        if g.requires_grad
    ]
    if not pairs:
        return torch.zeros_like(v)
    found = torch.autograd.grad(
        [g for g, _ in pairs], parameters, [part for _, part in pairs], retain_graph=True,
        materialize_grads=True,
    )  # fmt: skip
    return torch.cat([part.detach().flatten().cpu().double() for part in found])


def weight_sharpness(
    net: "Network", strategy: "Strategy", batch: "Batch", *, radius: float = 0.05
) -> float:
    """L(w + radius g / ||g||) - L(w), where g is the gradient of the cross-entropy L in w; both
    passes draw the same random numbers, if any."""
    seed = torch.initial_seed()
    named = {name: w for name, w in net.named_parameters() if w.requires_grad}
    with lent(net):
        with equally_drawn(seed):
            loss = _loss(net, strategy, batch)
        gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
        scale = radius / max(_norm(gradients), 1e-12)
        with torch.no_grad(), equally_drawn(seed):
            moved = {n: w + scale * g for (n, w), g in zip(named.items(), gradients, strict=True)}
            mixture = strategy.mixture(noise=False)
            there = F.cross_entropy(functional_call(net, moved, (batch[0], mixture)), batch[1])
    return float(there - loss.detach())


@contextmanager
def equally_drawn(seed: int) -> Iterator[None]:
    """A context manager in which torch draws from this seed; its generators do not advance."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _loss(net: "Network", strategy: "Strategy", batch: "Batch") -> Tensor:
    logits = net(batch[0], strategy.mixture(noise=False))
    assert isinstance(logits, Tensor)
    return F.cross_entropy(logits, batch[1])


def _norm(vectors: Sequence[Tensor]) -> float:
    return float(torch.stack([v.detach().square().sum() for v in vectors]).sum().sqrt())
