"""One level: the sheet goldnas.md, section 9, test 9."""

import pytest
import torch
from test_every_config import composed, make

from search_spaces.goldnas import CANDIDATES, goldnas
from strategies.gradients import eagerly
from strategies.strategy import Strategy
from supernets.network import Network, supernet


def ready(*overrides: str) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    space = goldnas(
        layers=3,
        nodes=1,
        channels=4,
        candidates=list(CANDIDATES),
        input_shape=(3, 8, 8),
        classes=3,
    )
    strategy = make(composed("strategy=goldnas", *overrides).strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    strategy.losses["gate_cost"].pressure.strength.fill_(0.1)
    return net, strategy


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 3, 8, 8), torch.randint(3, (6,))


def test_goldnas_9_alphas_and_weights_step_on_one_loss_of_one_batch():
    """Plain SGD: both move by -lr times the gradient of the same loss; only weights are clipped."""
    plain = [
        "strategy.alpha_optimizer.lr=1",
        "strategy.alpha_optimizer.momentum=0",
        "strategy.weight_optimizer.momentum=0",
        "strategy.weight_optimizer.weight_decay=0",
        "strategy.clip=0.01",
    ]
    net, strategy = ready(*plain)
    train = batch()
    loss, _ = strategy.loss(net, train)
    arch = strategy.arch_parameters()
    gradients = torch.autograd.grad(loss, [*arch, *net.parameters()])
    norm = torch.stack([g.norm() for g in gradients[len(arch) :]]).norm()
    assert norm > 0.01
    expected = [p - g for p, g in zip(arch, gradients, strict=False)]
    scaled = [g * 0.01 / norm for g in gradients[len(arch) :]]
    expected += [p - 0.01 * g for p, g in zip(net.parameters(), scaled, strict=True)]

    metrics = strategy.step(net, train, None, progress=0.0, move_alphas=True)

    assert metrics["train_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for found, wanted in zip([*arch, *net.parameters()], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_goldnas_9_one_forward_pass_and_no_val_images():
    net, strategy = ready()
    passes = []
    net.register_forward_hook(lambda *_: passes.append(1))
    strategy.step(net, batch(), None, progress=0.0, move_alphas=True)
    assert passes == [1]
    assert not strategy.update.two_level
    data = make(composed("data=synthetic", "data.size=64").data)
    roles = data.loaders(8, one_level=not strategy.update.two_level, seed=0)
    assert roles.val is None
    held_out = sum(len(y) for _, y in roles.select)
    assert sum(len(y) for _, y in roles.train) == 64 - held_out
    assert held_out == pytest.approx(6, abs=2)  # data.select


def test_a_second_step_starts_from_gradients_of_zero():
    net, strategy = ready("strategy.clip=null")
    strategy.step(net, batch(), None, progress=0.0, move_alphas=True)
    train = batch()
    moved = [*strategy.arch_parameters(), *net.parameters()]
    expected = torch.autograd.grad(strategy.loss(net, train)[0], moved)
    strategy.step(net, train, None, progress=0.0, move_alphas=True)
    for parameter, gradient in zip(moved, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_passes_of_other_gradients_have_other_names():
    """What keeps a pass for its next step knows it by its name and what it fills."""
    net, strategy = ready()
    asked = []

    def gradients(name, compute, batches, wanted):
        asked.append((name, len(wanted)))
        return eagerly(name, compute, batches, wanted)

    strategy.gradients = gradients
    for move_alphas in (True, False):
        strategy.step(net, batch(), None, progress=0.0, move_alphas=move_alphas)
    weights = len(strategy.weights)
    both = weights + len(strategy.arch_parameters())
    assert asked == [("weights and alphas", both), ("weights", weights)]


def test_alphas_that_stand_still_get_no_gradient():
    net, strategy = ready()
    before = [p.detach().clone() for p in strategy.arch_parameters()]
    strategy.step(net, batch(), None, progress=0.0, move_alphas=False)
    for old, new in zip(before, strategy.arch_parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None
    assert not strategy.alpha_optimizer.state
