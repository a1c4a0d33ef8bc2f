"""One first-order step by hand: which batch moves what, in which order, and what stands still.

The network is w x with a batch norm beside it, the loss a w mean(x): every number below is worked
out from w = 2, a = 3, a training batch of mean 5 and a validation batch of mean 7.
"""

import pytest
import torch
from torch import Tensor, nn

from strategies.gradients import Batch, eagerly
from strategies.update.first_order import FirstOrder


class Scaled(nn.Module):
    """w x; the batch norm sees x, its output is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.BatchNorm1d(1, affine=False, momentum=0.1)

    def forward(self, x: Tensor) -> Tensor:
        self.norm(x)
        return self.w * x


class Toy:
    """What an update asks of a strategy: alphas descend at rate 0.1, weights at 0.5."""

    gradients = staticmethod(eagerly)

    def __init__(self, net: Scaled, clip: float | None):
        self.a, self.clip, self.seen = nn.Parameter(torch.tensor(3.0)), clip, []
        self.weights = [net.w]
        self.alpha_optimizer = torch.optim.SGD([self.a], lr=0.1)
        self.weight_optimizer = torch.optim.SGD([net.w], lr=0.5)

    def arch_parameters(self) -> list[nn.Parameter]:
        return [self.a]

    def loss(
        self, net: nn.Module, batch: Batch, role: str = "train", offsets: None = None
    ) -> tuple[Tensor, Tensor]:
        self.seen.append((role, batch[0].mean().item()))
        y = net(batch[0])
        return self.a * y.mean(), torch.cat([y, -y], 1)


def batch(*values: float) -> Batch:
    return torch.tensor(values)[:, None], torch.tensor([0] * (len(values) - 1) + [1])


def stepped(clip: float | None, *, move_alphas: bool = True) -> tuple[Scaled, Toy, dict]:
    net = Scaled()
    toy = Toy(net, clip)
    val = batch(6.0, 8.0) if move_alphas else None
    train = batch(20.0, 8.0, 2.0, -8.0, 3.0)
    found = FirstOrder().step(toy, net, train, val, move_alphas=move_alphas)  # type: ignore[arg-type]
    return net, toy, found


def test_d1_alphas_descend_on_the_val_batch_and_then_weights_on_the_training_batch():
    net, toy, found = stepped(None)
    assert toy.seen == [("val", 7.0), ("train", 5.0)]
    assert toy.a.item() == pytest.approx(3 - 0.1 * 2 * 7)  # 1.6
    assert net.w.item() == pytest.approx(2 - 0.5 * 1.6 * 5)  # -2: by the alpha after its step
    assert found["val_loss"].item() == pytest.approx(3 * 2 * 7)
    assert found["train_loss"].item() == pytest.approx(1.6 * 2 * 5)
    assert found["train_accuracy"].item() == pytest.approx(0.6)  # 3 of class 0, the last two not
    assert FirstOrder().two_level  # val images are split off for it


def test_d1_the_gradient_of_the_weights_is_clipped_and_that_of_the_alphas_is_not():
    net, toy, _ = stepped(4.0)
    assert toy.a.item() == pytest.approx(1.6)
    assert net.w.item() == pytest.approx(2 - 0.5 * 4, abs=1e-5)  # of a gradient of 8


def test_d1_batch_norm_statistics_follow_the_training_batch_alone():
    net, _, _ = stepped(None)
    assert net.norm.running_mean.item() == pytest.approx(0.1 * 5)  # not also 0.1 of 7
    assert net.norm.num_batches_tracked.item() == 1


def test_alphas_that_stand_still_ask_for_no_val_batch():
    net, toy, found = stepped(None, move_alphas=False)
    assert toy.seen == [("train", 5.0)]
    assert toy.a.item() == 3.0
    assert net.w.item() == pytest.approx(2 - 0.5 * 3 * 5)
    assert "val_loss" not in found


def test_a_second_step_starts_from_gradients_of_zero():
    net, toy, _ = stepped(None)
    FirstOrder().step(toy, net, batch(4.0, 6.0), batch(6.0, 8.0), move_alphas=True)  # type: ignore[arg-type]
    assert toy.a.item() == pytest.approx(1.6 - 0.1 * -2 * 7)  # 3
    assert net.w.item() == pytest.approx(-2 - 0.5 * 3 * 5)
