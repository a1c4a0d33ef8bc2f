"""The fused form for a GPU equals the reference in float64: outputs, every gradient, every buffer.

Here it runs on a CPU. It is chosen, and its convolutions are, as on a GPU.
"""

import importlib
from functools import partial

import pytest
import torch
from equal_forms import (
    CPU,
    FAMILIES,
    Choose,
    assert_equal,
    drawn,
    everything,
    mixture_of,
    pruned,
    space_of,
)
from helpers import ROOT
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces import darts
from supernets import convolution, forms, packed
from supernets.lanes import Lanes, Side, Source, Together, block_of
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.network import CellModule, Network, supernet
from supernets.packed import PackedCell


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    for module in (forms, convolution):
        monkeypatch.setattr(module, "launches", lambda device: True)


def assert_close(found, expected, tolerance: float = 1e-10) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("candidate", [name for name in darts.CANDIDATES if name != "none"])
@pytest.mark.parametrize("k", [1, 2])
def test_each_candidate_of_darts(candidate: str, k: int):
    assert_equal(space_of("darts", 8, [candidate]), partial(PartialMixedOp, k=k))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choose", [everything, pruned, drawn])
@pytest.mark.parametrize("training", [True, False])
def test_each_family(family: str, choose: Choose, training: bool):
    assert_equal(space_of(family, 5), MixedOp, choose=choose, training=training)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_norms_with_scale_and_shift(training: bool):
    assert_equal(space_of("darts", 5), MixedOp, affine=True, choose=pruned, training=training)


@pytest.mark.parametrize("choose", [everything, pruned])
@pytest.mark.parametrize("factors", [True, False])
def test_partial_channels(choose: Choose, factors: bool):
    mixed_op = partial(PartialMixedOp, k=4)
    assert_equal(space_of("darts", 8), mixed_op, choose=choose, factors=factors)


def nets(space, mixed_op=MixedOp) -> list[Network]:
    """Equal weights, in the reference and in this form."""
    found = []
    for form in ("reference", "fused"):
        torch.manual_seed(0)
        found.append(supernet(space, mixed_op).double())
        forms.use_form(found[-1], form, CPU)
    return found


def test_a_gradient_can_be_differentiated_again():
    space, found = space_of("darts", 4, ["skip_connect", "max_pool_3x3", "sep_conv_3x3"]), []
    x = torch.randn(3, *space.input_shape, dtype=torch.float64)
    for net in nets(space):
        mixture = mixture_of(space)
        gates = [part.gates for part in mixture.groups.values()]
        loss = net(x, mixture).pow(2).sum()
        weights = list(net.parameters())
        gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        found.append(torch.autograd.grad(sum(g.sum() for g in gradients), gates))
    assert_close(found[1], found[0], 1e-7)


def test_edges_are_dropped_for_the_same_images():
    space, found = space_of("darts", 4, ["skip_connect", "sep_conv_3x3"]), []
    x = torch.randn(4, *space.input_shape, dtype=torch.float64)
    for net in nets(space, partial(PartialMixedOp, k=2)):
        net.set_drop_path(0.5)
        torch.manual_seed(1)
        found.append(net(x, mixture_of(space)))
    assert_close([found[1]], [found[0]])


def test_maps_whose_channels_are_together_give_the_same():
    space, found = space_of("darts", 8), []
    x = torch.randn(3, *space.input_shape, dtype=torch.float64)
    reference, net = nets(space, partial(PartialMixedOp, k=2))
    laid = x.contiguous(memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    for one, images in ((reference, x), (net, laid)):
        logits = one(images, mixture_of(space))
        weights = [w for w in one.parameters() if w.requires_grad]
        gradients = torch.autograd.grad(logits.pow(2).sum(), weights, materialize_grads=True)
        found.append([logits, *gradients])
    assert_close(found[1], found[0], 1e-8)


def test_under_autocast_gates_are_not_rounded():
    """A gate of 1 + 2^-12, which bfloat16 cannot hold, of maps that it holds exactly."""
    gate = torch.tensor([[1 + 2**-12]])
    x = torch.full((1, 1, 2, 2), 128.0)
    with torch.autocast("cpu", torch.bfloat16):
        y = packed.weighed([x], gate, None)
        assert torch.equal(y, torch.full((1, 1, 1, 2, 2), 128 * (1 + 2**-12)))
        rounded = packed.weighed([x.bfloat16()], gate, None)
    assert rounded.dtype == torch.bfloat16


def test_the_form_on_a_gpu_is_this_one(toy_darts):
    net = supernet(toy_darts, MixedOp)
    forms.use_form(net, "fused", CPU)
    cells = [m for m in net.modules() if isinstance(m, CellModule)]
    assert all(type(cell.form) is PackedCell for cell in cells)


def test_a_plan_that_a_graph_reads_outlives_others(monkeypatch):
    """A graph reads where gates stand from memory that must not be given to others."""
    space = space_of("darts", 4, ["skip_connect", "sep_conv_3x3"])
    net = nets(space)[1]
    x = torch.randn(2, *space.input_shape, dtype=torch.float64)
    form = next(m for m in net.modules() if isinstance(m, CellModule)).form
    for capturing in (False, True):
        monkeypatch.setattr(packed, "capturing", lambda device, on=capturing: on)
        net(x, mixture_of(space))
    net.train()
    kept = form.whole[1]
    monkeypatch.setattr(packed, "capturing", lambda device: False)
    net(x, mixture_of(space, lambda alive: alive & (torch.arange(2) < 1)))
    assert form.whole[1] is not kept
    assert form.captured == [kept]


def conv(channels: int, size: int = 1, groups: int = 1) -> tuple[nn.Module, ...]:
    return (nn.Conv2d(channels, channels, size, padding=size // 2, groups=groups, bias=False),)


def test_layers_that_are_alike_are_one_operation():
    """A separable convolution beside half of one: depthwise layers apart, the others together."""
    relu, norm = (nn.ReLU(),), (nn.BatchNorm2d(4),)
    depthwise = [conv(4, size, 4) for size in (3, 5, 3)]
    pointwise = [conv(4) for _ in range(3)]
    long = [relu, depthwise[0], pointwise[0], norm, relu, depthwise[1], pointwise[1], norm]
    short = [relu, depthwise[2], pointwise[2], norm]
    block = block_of([long, short])
    assert isinstance(block, Together)
    assert isinstance(block.inner, Together)
    assert block.inner.layers == (*pointwise[1], *pointwise[2])
    side = block.inner.inner
    assert isinstance(side, Side)
    assert side.layers == [depthwise[1], depthwise[2]]
    assert [lanes for _, lanes in side.parts] == [[0], [1]]
    assert side.parts[1][0] == Source(1, True)


def test_lanes_of_a_source_and_of_a_convolution_run_beside_each_other():
    """A 1x1 convolution of the state, and one of a depthwise convolution of it."""
    torch.manual_seed(0)
    first, second, depthwise = conv(4), conv(4), conv(4, 3, 4)
    block = block_of([[first], [depthwise, second]])
    x = torch.randn(2, 4, 3, 3)
    y, stacked = Lanes(x, 1, {}).computed(block)
    assert stacked
    expected = torch.cat([first[0](x), second[0](depthwise[0](x))], 1)
    torch.testing.assert_close(y, expected)


def test_lanes_of_a_state_and_of_its_relu_run_beside_each_other():
    torch.manual_seed(0)
    first, second = conv(4), conv(4)
    x = torch.randn(2, 4, 3, 3)
    y, _ = Lanes(x, 1, {}).computed(block_of([[first], [(nn.ReLU(),), second]]))
    torch.testing.assert_close(y, torch.cat([first[0](x), second[0](x.relu())], 1))


def operations(net: Network, x: Tensor, mixture) -> int:
    with FlopCounterMode(display=False) as counter:
        net(x, mixture)
    return counter.get_total_flops()


@pytest.mark.slow
def test_a_step_of_pcdarts_has_three_fifths_of_the_operations(monkeypatch):
    """Of the 11,098 that it had, at the paper's size; the number does not depend on the batch."""
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    counted = importlib.import_module("launches")
    found = counted.launches(counted.WORKLOADS["pcdarts"], 2)
    assert found.total() <= 0.6 * 11_098
    assert found["_foreach_lerp_"] == 0  # no statistics


def test_no_multiplication_is_added():
    """Matrix products of groups cost what the convolutions cost, and the gates' little more."""
    space = space_of("darts", 8)
    x = torch.randn(2, *space.input_shape, dtype=torch.float64)
    reference, net = (operations(net, x, mixture_of(space)) for net in nets(space))
    assert reference <= net <= 1.1 * reference
