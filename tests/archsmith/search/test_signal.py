"""The ratio of the mean of the alphas' gradient to its deviation."""

import math

import pytest
import torch
from torch import nn

from archsmith.search.signal import Signal


def after(*gradients: list[float]) -> Signal:
    signal, alphas = Signal(), nn.Parameter(torch.zeros(len(gradients[0])))
    for gradient in gradients:
        alphas.grad = torch.tensor(gradient)
        signal.add([alphas])
    return signal


def test_two_steps_by_hand():
    """Means 2 and 0, variances 2 and 8: (4 - 1 + 0 - 4) < 0; of the first alone (4 - 1) / 2."""
    assert after([1.0, -2.0], [3.0, 2.0]).ratio() == 0
    assert after([1.0], [3.0]).ratio() == pytest.approx(math.sqrt(1.5))


def test_the_scale_of_the_gradients_does_not_matter():
    found = after([1.0, 2.0], [3.0, 2.5], [2.0, 4.0]).ratio()
    assert after([10.0, 20.0], [30.0, 25.0], [20.0, 40.0]).ratio() == pytest.approx(found)


def test_noise_has_none_and_a_shift_by_a_tenth_of_the_deviation_has_a_tenth():
    noise = torch.randn(4000, 200, generator=torch.Generator().manual_seed(0)).double()
    shifted = [after(*(noise + shift).tolist()).ratio() for shift in (0.0, 0.1)]
    assert shifted == pytest.approx([0.0, 0.1], abs=0.005)


@pytest.mark.parametrize("gradients", [([1.0],), ([1.0], [1.0])])
def test_no_ratio_without_a_deviation(gradients):
    assert math.isnan(after(*gradients).ratio())


def test_an_alpha_without_a_gradient_counts_as_zero():
    signal, alphas = Signal(), [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    for value in (1.0, 3.0):
        alphas[0].grad = torch.tensor([value])
        signal.add(alphas)
    assert signal.ratio() == pytest.approx(math.sqrt(1.5))


def test_goes_on_from_its_state():
    half, device = after([1.0, 2.0], [3.0, 2.5]), torch.device("cpu")
    resumed = after([9.0, 9.0])
    resumed.load_state_dict(half.state_dict(), device)
    alphas = nn.Parameter(torch.zeros(2))
    alphas.grad = torch.tensor([2.0, 4.0])
    resumed.add([alphas])
    assert resumed.ratio() == after([1.0, 2.0], [3.0, 2.5], [2.0, 4.0]).ratio()
