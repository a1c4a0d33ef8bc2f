"""The sheet others.md, DrNAS, fact 5 (L2 on alphas) and 6 (KL to the uniform Dirichlet)."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor

from search_spaces.space import Space
from strategies.losses.dirichlet_anchor import DirichletAnchor
from strategies.relaxation.dirichlet import Dirichlet
from supernets.network import supernet


def anchored(
    distance: str, weight: float, *alphas: Tensor, alive: list[Tensor] | None = None
) -> Tensor:
    """The term for these groups of alphas."""
    masks = alive or [torch.ones_like(a, dtype=torch.bool) for a in alphas]
    strategy: Any = SimpleNamespace(
        relaxation=Dirichlet(), shifted=alphas.__getitem__, alive=dict(enumerate(masks))
    )
    term = DirichletAnchor(weight, distance)
    term.setup(torch.nn.Identity(), strategy)
    nothing: Any = None
    return term(nothing, nothing, nothing, nothing)


def test_drnas_5_l2_is_the_weight_decay_of_the_public_code():
    """1e-3 / 2 (1 + 4 + 0.25) = 0.002625; its gradient 1e-3 a is what Adam's decay adds."""
    alphas = torch.tensor([[1.0, -2.0, 0.5]], requires_grad=True)
    term = anchored("l2", 1e-3, alphas)
    assert term.item() == pytest.approx(0.002625)
    term.backward()
    torch.testing.assert_close(alphas.grad, torch.tensor([[1e-3, -2e-3, 5e-4]]))


@pytest.mark.slow
def test_drnas_5_l2_moves_alphas_as_that_weight_decay_does(toy_darts: Space):
    batch = torch.randn(4, 3, 16, 16), torch.randint(10, (4,))

    def two_steps(*overrides: str) -> list[Tensor]:
        torch.manual_seed(2)
        plain = ("strategy=drnas", "strategy.alpha_init=1.0", "strategy.pruning=null")
        config = composed(*plain, *overrides)
        strategy = make(config.strategy, space=toy_darts)
        net = supernet(toy_darts, strategy.mixed_op)
        strategy.setup(net, torch.device("cpu"))
        for _ in range(2):
            strategy.step(net, batch, batch, progress=0.0, move_alphas=True)
        return strategy.arch_parameters()

    decayed = two_steps(
        "strategy.losses.dirichlet_anchor.weight=0", "strategy.alpha_optimizer.weight_decay=0.1"
    )
    ours = two_steps("strategy.losses.dirichlet_anchor.weight=0.1")
    for a, b in zip(ours, decayed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert not torch.equal(ours[0], two_steps("strategy.losses.dirichlet_anchor.weight=0")[0])


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        ([0.0, 0.0, 0.0], 0.0),  # the anchor itself
        ([1.0, 0.0], math.log(2) - 0.5),  # Beta(2, 1), density 2x: ln 2 + 2 int x ln x
        ([0.0, 1.0, -1.0], 1.293712),  # from ln Gamma and psi, c = (1, 2, 1/e)
    ],
)
def test_drnas_6_kl_to_the_uniform_dirichlet(alphas: list[float], expected: float):
    assert anchored("kl", 1.0, torch.tensor([alphas])).item() == pytest.approx(expected, abs=1e-5)


def test_drnas_6_kl_is_the_mean_log_ratio_of_densities():
    c = torch.tensor([1.0, 2.0, math.exp(-1)])
    ours, uniform = (torch.distributions.Dirichlet(x) for x in (c, torch.ones(3)))
    draws = ours.sample((100_000,)).clamp_min(1e-30)
    ratio = ours.log_prob(draws / draws.sum(1, keepdim=True)) - uniform.log_prob(draws)
    found = anchored("kl", 1.0, torch.tensor([[0.0, 1.0, -1.0]]))
    assert ratio.mean().item() == pytest.approx(found.item(), abs=4 * ratio.std().item() / 1e5**0.5)


@pytest.mark.parametrize("distance", ["l2", "kl"])
def test_drnas_6_edges_and_groups_add_up_without_what_is_pruned(distance: str):
    row = torch.tensor([[0.3, -0.7]])
    once = anchored(distance, 1.0, row)
    padded = torch.tensor([[0.3, 5.0, -0.7], [4.0, 4.0, 4.0]])
    alive = torch.tensor([[True, False, True], [False] * 3])
    found = anchored(distance, 2.0, row, padded, alive=[torch.ones(1, 2, dtype=torch.bool), alive])
    torch.testing.assert_close(found, 4 * once)
    padded.requires_grad_()
    anchored(distance, 1.0, padded, alive=[alive]).backward()
    assert padded.grad is not None
    assert padded.grad[~alive].eq(0).all()
    assert padded.grad[alive].ne(0).all()


def test_a_single_candidate_has_no_distance_in_kl():
    alive = torch.tensor([[False, True]])
    assert anchored("kl", 1.0, torch.tensor([[1.0, 2.0]]), alive=[alive]).item() == 0.0


def test_other_relaxations_and_bad_settings_are_refused(toy_darts: Space):
    config = composed("strategy=darts", "+strategy/losses=dirichlet_anchor")
    strategy = make(config.strategy, space=toy_darts)
    with pytest.raises(ValueError, match=r"needs strategy/relaxation=dirichlet, found Softmax"):
        strategy.setup(supernet(toy_darts, strategy.mixed_op), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"distance: expected one of l2, kl, found 'l1'"):
        DirichletAnchor(1.0, "l1")
    with pytest.raises(ValueError, match=r"^weight: expected a number of at least 0, found -1"):
        DirichletAnchor(-1.0, "l2")
