"""The CPU's grouped convolutions against `F.conv2d`: outputs, gradients, second derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from supernets import convolution
from supernets.convolution import depthwise, grouped


@pytest.mark.parametrize("hw", [(7, 8), (3, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_depthwise_is_the_same_convolution(size, dilation, stride, hw):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *hw, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, size, size, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, None, stride, dilation * (size // 2), dilation, 3)
    y = depthwise(x, weight, stride, dilation)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for found, wanted in zip(
        torch.autograd.grad(y, (x, weight), grad),
        torch.autograd.grad(expected, (x, weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "stride", "dilation"),
    [
        (3, 1, 2),
        pytest.param(5, 2, 1, marks=pytest.mark.slow),
        pytest.param(5, 1, 1, marks=pytest.mark.slow),
    ],
)
def test_depthwise_has_first_and_second_derivatives(size, stride, dilation):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, size, size, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, w: depthwise(x, w, stride, dilation), (x, weight))
    assert gradgradcheck(lambda x, w: depthwise(x, w, stride, dilation), (x, weight))


CONVOLUTIONS = [
    dict(kernel_size=1, groups=2),
    dict(kernel_size=3, groups=6, padding=2, dilation=2),
    dict(kernel_size=5, groups=6, padding=2, stride=2),
    # what has no faster way
    dict(kernel_size=1, groups=2, stride=2),
    dict(kernel_size=3, groups=6, padding=0),
    dict(kernel_size=3, groups=6, padding=3, dilation=3, stride=2),
    dict(kernel_size=4, groups=6, padding=2),
    dict(kernel_size=(1, 3), groups=6, padding=(0, 1)),
    dict(kernel_size=3, groups=2, padding=1),
    dict(kernel_size=3, groups=1, padding=1),
    dict(kernel_size=1, groups=2, bias=True),
]


@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
def test_every_convolution_is_the_library_s(settings):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, **{"bias": False, **settings}).double()
    x = torch.randn(2, 6, 7, 6, dtype=torch.float64)
    y = grouped(x, conv.weight, conv.bias, conv, conv.groups)
    torch.testing.assert_close(y, conv(x), rtol=1e-12, atol=1e-12)


def test_single_precision_and_channels_last_are_as_near_as_rounding():
    torch.manual_seed(0)
    x = torch.randn(4, 16, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(16, 1, 5, 5, requires_grad=True)
    y = depthwise(x, weight, 1, 2)
    exact = F.conv2d(x.double(), weight.double(), None, 1, 4, 2, 16)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(y.square().sum(), weight)[0]
    wanted = torch.autograd.grad(exact.square().sum(), weight)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)


def test_wide_groups_stay_with_the_library(monkeypatch):
    def refused(*_):
        raise AssertionError

    monkeypatch.setattr(convolution, "pointwise", refused)
    conv = nn.Conv2d(128, 128, 1, groups=2, bias=False)
    grouped(torch.randn(1, 128, 2, 2), conv.weight, None, conv, 2)
    conv = nn.Conv2d(64, 64, 1, groups=2, bias=False)
    with pytest.raises(AssertionError):
        grouped(torch.randn(1, 64, 2, 2), conv.weight, None, conv, 2)


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_on_a_gpu_groups_of_4_to_16_channels_are_matrix_products(
    channels: int, last: bool, dtype: torch.dtype, monkeypatch
):
    monkeypatch.setattr(convolution, "launches", lambda device: True)
    torch.manual_seed(0)
    conv = nn.Conv2d(3 * channels, 3 * channels, 1, groups=3, bias=False).double()
    layout = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(2, 3 * channels, 5, 4, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    with (
        torch.autocast("cpu", dtype, enabled=dtype != torch.float64),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile,
    ):
        y = grouped(x.to(dtype), conv.weight.to(dtype), None, conv, 3)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=layout)
    names = {event.key for event in profile.key_averages()}
    assert "aten::bmm" in names
    expected = conv(x)
    near = dict(rtol=1e-12, atol=1e-12) if dtype == torch.float64 else dict(rtol=0.05, atol=0.1)
    torch.testing.assert_close(y.double(), expected, **near)
    if dtype == torch.float64:
        leaves = x, conv.weight
        grad = torch.randn_like(y)
        gradients = [torch.autograd.grad(each, leaves, grad) for each in (y, expected)]
        for found, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
