"""Nested sizes in one tensor, against hand-worked numbers and explicit mixtures, in float64."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernets.entangled import (
    EntangledBatchNorm2d,
    EntangledConv2d,
    EntangledLayerNorm,
    EntangledLinear,
    Sizes,
    centred,
    gated,
    kernel_survival,
    prefixes,
    superpose,
    survival,
)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sizes(gates: list[float], of: list[int], *, active: list[int] | None = None) -> Sizes:
    on = range(len(of)) if active is None else active
    return Sizes(torch.tensor(gates), tuple(of), tuple(on))


def one(o: int, of: list[int], *, runs_alone: bool = True) -> Sizes:
    gates = [float(i == o) for i in range(len(of))]
    return sizes(gates, of, active=[o] if runs_alone else None)


def equal(found: Tensor, expected: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=within)


def test_entangled_1_a_kernel_by_hand() -> None:
    conv = EntangledConv2d(1, 1, 5, bias=False)
    nn.init.ones_(conv.weight)
    y = conv(torch.ones(1, 1, 9, 9), sizes([0.3, 0.7], [3, 5]))
    assert y[0, 0, 4, 4].item() == pytest.approx(0.3 * 9 + 0.7 * 25)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("runs_alone", [True, False])
def test_entangled_1_one_kernel_is_its_convolution(
    stride: int, dilation: int, runs_alone: bool
) -> None:
    conv, x = EntangledConv2d(4, 6, 5, stride=stride, dilation=dilation), torch.randn(2, 4, 9, 8)
    y = conv(x, one(0, [3, 5], runs_alone=runs_alone))
    inner = conv.weight[:, :, 1:4, 1:4]
    equal(y, F.conv2d(x, inner, conv.bias, stride, dilation, dilation))


def test_entangled_2_a_mask_of_two_choices_by_hand() -> None:
    weight = torch.randn(4, 2, 5, 5)
    of_widths, widths = torch.tensor([0.25, 0.75]), prefixes([2, 4], 0, 4)
    of_kernels, kernels = torch.tensor([0.4, 0.6]), centred([3, 5], 5)
    mask = survival(of_widths, widths, weight.shape) * survival(of_kernels, kernels, weight.shape)
    assert mask.shape == (4, 1, 5, 5)
    found = [mask[0, 0, 2, 2], mask[0, 0, 0, 0], mask[3, 0, 2, 2], mask[3, 0, 0, 0]]
    assert [round(float(value), 12) for value in found] == [1.0, 0.6, 0.75, 0.45]
    explicit = torch.zeros_like(weight)
    for (g, width), (h, kernel) in product(
        zip(of_widths, widths, strict=True), zip(of_kernels, kernels, strict=True)
    ):
        part = torch.zeros_like(weight)
        both = (width[0], *kernel[1:])
        part[both] = weight[both]
        explicit += g * h * part
    equal(weight * mask, explicit)
    equal(superpose(superpose(weight, of_widths, widths), of_kernels, kernels), explicit)
    equal(
        kernel_survival(sizes([0.4, 0.6], [3, 5])),
        survival(of_kernels, kernels, weight.shape)[0, 0],
    )


def test_entangled_2_a_joint_choice_of_width_and_kernel() -> None:
    """Two options, no outer product: width 2 with kernel 5, width 4 with kernel 3."""
    weight, gates = torch.randn(4, 2, 5, 5), torch.tensor([0.3, 0.7])
    slices = [(slice(2), *centred([5], 5)[0][1:]), (slice(4), *centred([3], 5)[0][1:])]
    mask = survival(gates, slices, weight.shape)
    found = [mask[0, 0, 2, 2], mask[0, 0, 0, 0], mask[3, 0, 2, 2], mask[3, 0, 0, 0]]
    assert [round(float(value), 12) for value in found] == [1.0, 0.3, 0.7, 0.0]


def test_entangled_3_an_input_width_by_hand() -> None:
    """What the producer carries: x times the survivals (1, 0.5)."""
    linear = EntangledLinear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = linear(gated(torch.ones(1, 2), sizes([0.5, 0.5], [1, 2])))
    equal(y, torch.tensor([[2.0, 5.0]]))


def test_entangled_4_not_equal_behind_a_nonlinearity() -> None:
    linear = EntangledLinear(2, 1, bias=False)
    linear.weight.data = torch.tensor([[1.0, -3.0]])
    x, both = torch.ones(1, 2), [one(0, [1, 2]), one(1, [1, 2])]
    mixture = sum(0.5 * F.relu(linear(gated(x, each))) for each in both)
    assert mixture.item() == 0.5
    assert F.relu(linear(gated(x, sizes([0.5, 0.5], [1, 2])))).item() == 0.0


@pytest.mark.parametrize("act", [nn.Identity(), nn.ReLU()])
def test_entangled_5_a_hidden_axis_is_gated_once(act: nn.Module) -> None:
    """1.75; gates on both layers would give 1.5625."""
    first, second = EntangledLinear(1, 2, bias=False), EntangledLinear(2, 1, bias=False)
    nn.init.ones_(first.weight), nn.init.ones_(second.weight)
    hidden = sizes([0.25, 0.75], [1, 2])
    y = second(gated(act(first(torch.ones(1, 1), hidden.largest)), hidden))
    assert y.item() == 1.75


@pytest.mark.parametrize("training", [True, False])
def test_entangled_6_equal_to_the_mixture_through_norm_and_nonlinearity(training: bool) -> None:
    first, norm = EntangledConv2d(3, 8, 3), EntangledBatchNorm2d(8)
    second, x = EntangledConv2d(8, 5, 1), torch.randn(4, 3, 6, 6)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    norm.train(training)

    def net(hidden: Sizes) -> Tensor:
        return second(gated(F.gelu(norm(first(x, None, hidden.largest))), hidden))

    gates, widths = [0.2, 0.3, 0.5], [2, 5, 8]
    mixture = sum(gates[o] * net(one(o, widths)) for o in range(3))
    equal(net(sizes(gates, widths)), mixture, 1e-10)


def test_entangled_7_gradients_by_hand() -> None:
    alphas = torch.tensor([0.25, 0.75]).log().requires_grad_()
    gates = alphas.softmax(0)
    gates.retain_grad()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    loss = gated(weight, Sizes(gates, (2, 4), (0, 1)), 0).sum()
    loss.backward()
    assert loss.item() == pytest.approx(8.25)
    equal(gates.grad, torch.tensor([3.0, 10.0]))
    equal(alphas.grad, torch.tensor([-1.3125, 1.3125]))
    equal(weight.grad, torch.tensor([1.0, 1.0, 0.75, 0.75]))


@pytest.mark.parametrize("runs_alone", [True, False])
def test_entangled_8_nothing_leaks_out_of_a_narrow_option(runs_alone: bool) -> None:
    conv, norm, out = EntangledConv2d(2, 6, 3), EntangledBatchNorm2d(6), EntangledConv2d(6, 2, 1)
    hidden, x = one(0, [3, 6], runs_alone=runs_alone), torch.randn(3, 2, 5, 5)

    def run() -> Tensor:
        return out(gated(F.relu(norm(conv(x, None, hidden.largest))), hidden))

    before = run()
    before.square().sum().backward()
    for tensor in (conv.weight, conv.bias, norm.weight, norm.bias):
        assert tensor.grad[3:].eq(0).all()
        assert tensor.grad[:3].ne(0).any()
    assert out.weight.grad[:, 3:].eq(0).all()
    out.weight.data[:, 3:] = 1e6
    equal(run(), before, 0)


def test_entangled_9_layer_norm_by_hand() -> None:
    x = torch.tensor([1.0, 3.0, 5.0, 7.0])
    norm = EntangledLayerNorm(4, eps=0.0)
    equal(norm(x, one(0, [2, 4])), torch.tensor([-1.0, 1.0]))
    equal(norm(x, one(0, [2, 4], runs_alone=False)), torch.tensor([-1.0, 1.0, 0.0, 0.0]))
    rms = EntangledLayerNorm(4, eps=0.0, centre=False)
    equal(rms(x, one(0, [2, 4])), torch.tensor([1.0, 3.0]) / 5**0.5)


@pytest.mark.parametrize("centre", [True, False])
def test_entangled_10_layer_norm_is_the_mixture_of_layer_norms(centre: bool) -> None:
    x, norm = 3 + torch.randn(2, 5, 12), EntangledLayerNorm(12, centre=centre)
    nn.init.normal_(norm.weight)
    if norm.bias is not None:
        nn.init.normal_(norm.bias)
    gates, widths = [0.2, 0.5, 0.3], [6, 3, 12]  # in any order
    explicit = torch.zeros_like(x)
    for gate, width in zip(gates, widths, strict=True):
        part = x[..., :width]
        if centre:
            y = F.layer_norm(part, (width,), norm.weight[:width], norm.bias[:width])
        else:
            y = F.rms_norm(part, (width,), norm.weight[:width], 1e-5)
        explicit[..., :width] += gate * y
    equal(norm(x, sizes(gates, widths)), explicit)


@pytest.mark.parametrize("training", [True, False])
def test_entangled_11_a_batch_norm_of_a_prefix_is_that_network_s(training: bool) -> None:
    norm, alone, x = EntangledBatchNorm2d(6), nn.BatchNorm2d(4), torch.randn(3, 4, 5, 5)
    for name in ("weight", "bias", "running_mean", "running_var"):
        nn.init.uniform_(getattr(norm, name), 0.5, 1.5)
        getattr(alone, name).data.copy_(getattr(norm, name)[:4])
    rest = norm.running_mean[4:].clone()
    norm.train(training), alone.train(training)
    equal(norm(x), alone(x))
    equal(norm.running_mean[:4], alone.running_mean)
    equal(norm.running_var[:4], alone.running_var)
    equal(norm.running_mean[4:], rest, 0)


def test_entangled_15_a_nested_hidden_layer_by_hand() -> None:
    hidden = sizes([0.1, 0.2, 0.3, 0.4], [1, 2, 4, 8])
    equal(hidden.survival(), torch.tensor([1, 0.9, 0.7, 0.7, 0.4, 0.4, 0.4, 0.4]))


def test_entangled_21_one_option_is_the_sliced_layer_bit_for_bit() -> None:
    conv, x = EntangledConv2d(4, 8, 7), torch.randn(2, 3, 6, 6)
    alone = nn.Conv2d(3, 5, 3, padding=1)
    alone.weight.data.copy_(conv.weight[:5, :3, 2:5, 2:5])
    alone.bias.data.copy_(conv.bias[:5])
    y = gated(conv(x, one(0, [3, 5, 7]), 5), one(1, [2, 5, 8]))
    assert torch.equal(y, alone(x))


def test_entangled_22_only_drawn_options_get_a_gradient() -> None:
    gates = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    gated(torch.ones(2, 8), Sizes(gates, (2, 5, 8), (1,))).sum().backward()
    equal(gates.grad, torch.tensor([0.0, 10.0, 0.0]), 0)


def test_depthwise_kernels_and_widths() -> None:
    conv, x = EntangledConv2d(6, 6, 5, groups=6), torch.randn(2, 4, 7, 7)
    expected = F.conv2d(x, conv.weight[:4, :, 1:4, 1:4], conv.bias[:4], 1, 1, 1, 4)
    equal(conv(x, one(0, [3, 5])), expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kernel_size": 4}, "kernel_size: expected an odd number, found 4"),
        ({"kernel_size": 3, "groups": 2}, "groups: expected 1, or 4"),
    ],
)
def test_what_does_not_nest_is_refused(given: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EntangledConv2d(4, 4, **given)


def found(seed: int, *, price: float) -> tuple[int, int]:
    """The width and kernel that gates find in the weights of a teacher of width 4 and kernel 3,
    whose other channels and rims are noise. Weights are fixed: training would hide the noise."""
    torch.manual_seed(seed)
    conv, norm = EntangledConv2d(2, 8, 5), EntangledBatchNorm2d(8, affine=False)
    out, widths, kernels = EntangledConv2d(8, 3, 1), [2, 4, 8], [1, 3, 5]
    alphas = [torch.zeros(3, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.Adam(alphas, 0.1)

    def run(width: Sizes, kernel: Sizes, x: Tensor) -> Tensor:
        y: Tensor = out(gated(F.relu(norm(conv(x, kernel, width.largest))), width))
        return y

    for _ in range(100):
        x = torch.randn(16, 2, 8, 8)
        with torch.no_grad():
            y = run(one(1, widths), one(1, kernels), x)
        width, kernel = (
            Sizes(a.softmax(0), tuple(of), (0, 1, 2))
            for a, of in zip(alphas, (widths, kernels), strict=True)
        )
        mean_width, mean_area = (
            (s.gates * torch.tensor(s.sizes, dtype=torch.double) ** power).sum()
            for s, power in ((width, 1), (kernel, 2))
        )
        loss = F.mse_loss(run(width, kernel, x), y) / y.var()
        optimizer.zero_grad()
        (loss + price * (mean_width * mean_area).log()).backward()
        optimizer.step()
    o, p = (int(a.argmax()) for a in alphas)
    return widths[o], kernels[p]


@pytest.mark.parametrize("seed", range(5))
def test_entangled_24_a_planted_width_and_kernel_is_found(seed: int) -> None:
    assert found(seed, price=0.02) == (4, 3)
