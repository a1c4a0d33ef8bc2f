"""How sharp the found minimum is: in the alphas, and in the weights. Costly, hence optional.

Sources: Zela et al. 2020, arXiv:1909.09656, section 4.1 (the dominant eigenvalue of the Hessian of
the validation loss in alpha tells a collapse ahead); Foret et al. 2021, arXiv:2010.01412, eq. 2
(the rise of the loss to a neighbour of the weights, here along the gradient).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from strategies.gradients import Batch
from strategies.losses.snapshot import lent
from strategies.strategy import Strategy
from supernets.forms import twice_differentiable
from supernets.frozen import without_gradients
from supernets.network import Network

ITERATIONS = 20


def alpha_eigenvalue(net: Network, strategy: Strategy, batch: Batch) -> float:
    """The eigenvalue of largest magnitude of the Hessian of the cross-entropy in alphas and betas.

    By power iteration, on one batch with its own batch-norm statistics and without noise.
    """
    arch = strategy.arch_parameters()
    with lent(net), without_gradients(strategy.weights), twice_differentiable():
        loss = _loss(net, strategy, batch)
        gradients = torch.autograd.grad(loss, arch, create_graph=True, materialize_grads=True)
    source = torch.Generator().manual_seed(0)
    v = [torch.randn(a.shape, generator=source).to(a) for a in arch]
    value = 0.0
    for _ in range(ITERATIONS):
        norm = _norm(v)
        if norm == 0:
            return 0.0
        v = [u / norm for u in v]
        pairs = [(g, u) for g, u in zip(gradients, v, strict=True) if g.requires_grad]
        if not pairs:
            return 0.0
        product = torch.autograd.grad(
            [g for g, _ in pairs], arch, [u for _, u in pairs], retain_graph=True,
            materialize_grads=True,
        )  # fmt: skip
        value = sum(float((u * p).sum()) for u, p in zip(v, product, strict=True))
        v = list(product)
    return value


def weight_sharpness(
    net: Network, strategy: Strategy, batch: Batch, *, radius: float = 0.05
) -> float:
    """L(w + radius g / ||g||) - L(w), g the gradient of the cross-entropy L in the weights w."""
    named = {name: w for name, w in net.named_parameters() if w.requires_grad}
    with lent(net):
        loss = _loss(net, strategy, batch)
        gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
        scale = radius / max(_norm(gradients), 1e-12)
        with torch.no_grad():
            moved = {n: w + scale * g for (n, w), g in zip(named.items(), gradients, strict=True)}
            mixture = strategy.mixture(noise=False)
            there = F.cross_entropy(functional_call(net, moved, (batch[0], mixture)), batch[1])
    return float(there - loss.detach())


def _loss(net: Network, strategy: Strategy, batch: Batch) -> Tensor:
    logits = net(batch[0], strategy.mixture(noise=False))
    assert isinstance(logits, Tensor)
    return F.cross_entropy(logits, batch[1])


def _norm(vectors: Sequence[Tensor]) -> float:
    return float(torch.stack([v.detach().square().sum() for v in vectors]).sum().sqrt())
