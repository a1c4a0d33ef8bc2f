"""Sheet others.md, SmoothDARTS."""

import pytest
import torch
import torch.nn.functional as F
from test_every_config import composed, make

from search_spaces.space import Space
from strategies.strategy import Strategy
from strategies.update.smooth import Smooth
from supernets.network import Network, supernet


def ready(space: Space, name: str, *overrides: str) -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    strategy = make(composed(f"strategy={name}", *overrides).strategy, space=space)
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, torch.device("cpu"))
    return net, strategy


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, 3, 16, 16), torch.randint(10, (8,))


@pytest.fixture
def tiny(toy_darts: Space) -> Space:
    return toy_darts.resize(nodes=1, candidates=["skip_connect", "sep_conv_3x3", "max_pool_3x3"])


def test_sdarts_epsilon_grows_from_epoch_to_epoch():
    update = Smooth(0.03, 0.3, 0)
    found = []
    for epoch in range(3):
        update.epoch_start(epoch, 3)
        found.append(update.epsilon)
    assert found == pytest.approx([0.03, 0.12, 0.21])


def test_sdarts_rs_offsets_are_uniform_within_epsilon(tiny: Space):
    net, strategy = ready(tiny, "sdarts_rs")
    strategy.update.epsilon = 0.2
    drawn = torch.cat(
        [
            offsets.flatten()
            for _ in range(200)
            for offsets in strategy.update.offsets(strategy, net, batch()).values()
        ]
    )
    assert -0.2 <= drawn.min() < -0.19
    assert 0.19 < drawn.max() <= 0.2
    assert abs(float(drawn.mean())) < 0.01


def test_sdarts_the_weight_step_has_offsets_and_the_alpha_step_has_none(tiny: Space, monkeypatch):
    net, strategy = ready(tiny, "sdarts_rs")
    asked = []
    loss = Strategy.loss

    def noted(self, net, batch, role="train", offsets=None):
        asked.append((role, offsets is not None))
        return loss(self, net, batch, role, offsets)

    monkeypatch.setattr(Strategy, "loss", noted)
    strategy.step(net, batch(), batch(), progress=0.0, move_alphas=True)
    assert asked == [("val", False), ("train", True)]


def test_sdarts_gates_stay_between_0_and_1_and_dead_ones_at_0(tiny: Space):
    _, strategy = ready(tiny, "sdarts_rs")
    strategy.prune(
        {name: t.index_fill(1, torch.tensor([0]), False) for name, t in strategy.alive.items()}
    )
    for offset, expected in ((5.0, 1.0), (-5.0, 0.0)):
        moved = {name: torch.full_like(a, offset) for name, a in strategy.alphas.items()}
        for group in strategy.mixture(offsets=moved).groups.values():
            assert group.gates[:, 0].tolist() == [0.0] * len(group.gates)
            assert bool((group.gates[:, 1:] == expected).all())


def test_sdarts_adv_raises_the_loss_and_moves_no_statistics(tiny: Space):
    net, strategy = ready(tiny, "sdarts_adv")
    strategy.update.epsilon = 0.2
    x, y = batch()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}

    def losses(steps: int) -> list[float]:
        strategy.update.attack_steps = steps
        found = []
        for seed in range(5):
            torch.manual_seed(seed)
            offsets = strategy.update.offsets(strategy, net, (x, y))
            assert all(bool((t.abs() <= 0.2 + 1e-6).all()) for t in offsets.values())
            with torch.no_grad():
                found.append(float(F.cross_entropy(net(x, strategy.mixture(offsets=offsets)), y)))
                net.load_state_dict(before, strict=False)
        return found

    attacked, drawn = losses(7), losses(0)
    assert all(a > b for a, b in zip(attacked, drawn, strict=True))
    strategy.update.attack_steps = 7
    strategy.update.offsets(strategy, net, (x, y))
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_sdarts_only_what_runs_gets_an_offset(tiny: Space):
    """Of sampled gates: the others are 0, which the mixed op of one path relies on."""
    _, strategy = ready(tiny, "gdas")
    moved = {name: torch.full_like(a, 0.5) for name, a in strategy.alphas.items()}
    for group in strategy.mixture(offsets=moved).groups.values():
        assert (group.gates > 0).sum(1).tolist() == [1] * len(group.gates)


def test_sdarts_adv_attacks_in_micro_batches(tiny: Space):
    net, strategy = ready(tiny, "sdarts_adv", "strategy.update.attack_steps=1")
    strategy.micro_batches = 4
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    strategy.update.offsets(strategy, net, batch())
    assert set(sizes) == {2}  # some twice, as their activations are computed again


def test_sdarts_adv_steps_are_twice_epsilon_over_their_number(tiny: Space, monkeypatch):
    """Two steps of epsilon, up and down again: min(d, 0) of a drawn d. Where the loss does not
    change, d stays."""
    net, strategy = ready(tiny, "sdarts_adv")
    strategy.update.epsilon, images = 0.2, batch()

    def attacked(steps: int) -> dict[str, torch.Tensor]:
        strategy.update.attack_steps, signs = steps, iter([1.0, -1.0])

        def slopes(loss: torch.Tensor, moved: list[torch.Tensor]) -> list[torch.Tensor]:
            sign = next(signs)
            found = [torch.full_like(one, sign) for one in moved]
            return [one.index_fill(1, torch.tensor([0]), 0.0) for one in found]

        monkeypatch.setattr(torch.autograd, "grad", slopes)
        torch.manual_seed(1)
        return strategy.update.offsets(strategy, net, images)

    drawn, found = attacked(0), attacked(2)
    for name, start in drawn.items():
        assert torch.equal(found[name][:, 0], start[:, 0])
        assert torch.allclose(found[name][:, 1:], start[:, 1:].clamp(max=0), atol=1e-7)
