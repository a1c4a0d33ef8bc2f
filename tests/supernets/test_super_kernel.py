"""A super-kernel against MBConv blocks with the same parts of the weights."""

import pytest
import torch
from torch import Tensor, nn

from search_spaces.mbconv import CANDIDATES, mbconv
from search_spaces.ops import MBConv
from supernets.costs import candidate_macs, parameters
from supernets.final_costs import final_costs
from supernets.forms import use_form
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.network import supernet
from supernets.super_kernel import SuperKernelOp

OPTIONS = [name for name in CANDIDATES if name != "mbconv_3x3_e1"]
ALL = range(len(OPTIONS))


def super_kernel(c_out: int = 4, stride: int = 1, *, skip: bool = True) -> SuperKernelOp:
    """With shifts and statistics that would show where a gate lets a norm's shift pass."""
    names = OPTIONS if skip else OPTIONS[1:]
    op = SuperKernelOp([CANDIDATES[name] for name in names], 4, c_out, stride, affine=True)
    for norm in op.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
                tensor.normal_()
            norm.running_var.uniform_(0.5, 2)
    return op


def by_hand(op: SuperKernelOp, name: str, c_out: int, stride: int) -> nn.Module:
    """The option with its part of the super-kernel's weights."""
    made = CANDIDATES[name](4, c_out, stride, affine=True, search=False)
    if not isinstance(made, MBConv):
        return made
    halves = [op.first, op.second] if name.endswith("e6") else [op.first]
    middle = slice(None) if "5x5" in name else slice(1, 4)
    expand, norm1, _, depthwise, norm2, _, project, norm3 = made.layers
    joined = {
        expand: [half.expand[0].weight for half in halves],
        depthwise: [half.depthwise.weight[:, :, middle, middle] for half in halves],
    }
    for layer, weights in joined.items():
        layer.weight.data = torch.cat(weights).data.clone()
    project.weight.data = torch.cat([half.project[2].weight for half in halves], 1).data.clone()
    of_halves = [h.expand[1] for h in halves], [h.project[0] for h in halves]
    for norm, own in zip((norm1, norm2, norm3), (*of_halves, [op.norm]), strict=True):
        states = [one.state_dict() for one in own]
        kept = states[0].keys() - {"num_batches_tracked"}
        joined = {name: torch.cat([state[name] for state in states]) for name in kept}
        norm.load_state_dict(states[0] | joined)
    return made


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("c_out", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_singlepath_2_each_option_equals_its_mbconv(
    training: bool, alone: bool, c_out: int, stride: int
):
    """Alone it runs in its own size; else all run, and the gates of the others are 0."""
    same = (c_out, stride) == (4, 1)
    names = OPTIONS if same else OPTIONS[1:]
    op = super_kernel(c_out, stride, skip=same).train(training)
    x = torch.randn(3, 4, 7, 7)
    for o, name in enumerate(names):
        wanted = by_hand(op, name, c_out, stride).train(training)(x)
        y = op(x, torch.eye(len(names))[o], [o] if alone else range(len(names)))
        torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)


def test_singlepath_1_a_skip_is_exactly_the_identity():
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(super_kernel()(x, torch.eye(5)[0], ALL), x)


def test_singlepath_1_a_closed_ring_leaves_the_centre():
    op = super_kernel()
    kernels = op.first.kernels(torch.tensor(0.0))
    assert torch.equal(kernels[:, :, 1:4, 1:4], op.first.depthwise.weight[:, :, 1:4, 1:4])
    assert kernels.square().sum() == kernels[:, :, 1:4, 1:4].square().sum()
    assert torch.equal(op.first.kernels(torch.tensor(1.0)), op.first.depthwise.weight)


def test_norms_by_hand():
    op = super_kernel()  # 12 channels a half
    for half, value in ((op.first, 1.0), (op.second, 2.0)):
        half.depthwise.weight.data.fill_(value)
    assert op.ring_norm().item() == pytest.approx((12 * 16 * (1 + 4)) ** 0.5)
    closed = [n.item() for n in op.half_norms(torch.tensor(0.0))]
    assert closed == pytest.approx([(12 * 9) ** 0.5, (12 * 9 * 4) ** 0.5])
    opened = [n.item() for n in op.half_norms(torch.tensor(1.0))]
    assert opened == pytest.approx([(12 * 25) ** 0.5, (12 * 25 * 4) ** 0.5])


def gradient(op: nn.Module, gates: Tensor) -> Tensor:
    gates = gates.clone().requires_grad_()
    y = op(torch.randn(2, 4, 5, 5), gates, ALL)
    (found,) = torch.autograd.grad((y * torch.randn(y.shape)).sum(), gates)
    return found


def test_every_gate_has_a_gradient_behind_a_batch_norm():
    """Gates on the kernels themselves would have none: the norm takes their scale away."""
    assert (gradient(super_kernel(), torch.full((5,), 0.2)).abs() > 1e-3).all()
    assert gradient(super_kernel(), torch.eye(5)[0]).isfinite().all()


def small(**changes):
    return mbconv(
        layers=2, channels=4, widths=[1], strides=[1], ends=[1, 2], candidates=OPTIONS,
        input_shape=(3, 8, 8), classes=2, **changes,
    )  # fmt: skip


def test_an_option_costs_what_it_costs_in_the_final_network():
    space = small()
    costs = candidate_macs(supernet(space, SuperKernelOp))["blocks"]
    assert torch.equal(costs.double(), final_costs(space)["macs"].tables["blocks"])
    assert torch.equal(costs, candidate_macs(supernet(space, MixedOp))["blocks"])


def test_it_has_the_weights_of_the_widest_option():
    assert parameters(supernet(small(), SuperKernelOp).layers[1]) == 4 * 24 + 24 * 25 + 24 * 4


def test_other_options_are_refused():
    with pytest.raises(ValueError, match=r"^a super-kernel holds mbconv_3x3_e3"):
        SuperKernelOp([CANDIDATES[name] for name in OPTIONS[:3]], 4, 4, 1)


@pytest.mark.parametrize("form", ["fused", "native"])
def test_every_form_of_a_network_gives_the_same(form: str):
    net, choice = supernet(small(), SuperKernelOp), small().choices["blocks"]
    gates = torch.rand(len(choice.rows), choice.width)
    active = [range(len(row.options)) for row in choice.rows]
    mixture, x = Mixture({"blocks": GroupMixture(gates, None, active)}), torch.randn(2, 3, 8, 8)
    wanted = net(x, mixture)
    use_form(net, form, torch.device("cpu"))
    torch.testing.assert_close(net(x, mixture), wanted)
