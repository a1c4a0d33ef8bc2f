"""Final networks by the native kernels equal the reference: outputs, every gradient, every buffer.

Float32 is compared with the reference in float64, and the reference in float32 is the measure, as
in test_native.py. Drop-path drops the same images in both.
"""

import copy
from collections.abc import Mapping

import pytest
import torch
from equal_forms import CPU
from torch import Tensor, nn
from torch.func import functional_call

from search_spaces import darts, goldnas, nasbench201
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.checkpointing import checkpointed
from supernets.forms import use_form
from supernets.native import build
from supernets.native.final import NativeFinal
from supernets.network import CellModule, Network, final_network

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler on this machine")


def darts_space(channels: int = 6, size: tuple[int, int] = (9, 11), **more: object) -> Space:
    return darts.darts(
        layers=3, nodes=2, channels=channels, candidates=list(darts.CANDIDATES),
        input_shape=(3, *size), classes=4, **more,
    )  # fmt: skip


def kept(space: Space, *names: str) -> Architecture:
    """Keeps these on every edge that offers them, and the last candidate on the others."""
    choices = {
        group: {
            edge.name: tuple(n for n in edge.names if n in names) or edge.names[-1:]
            for edge in cell.edges
        }
        for group, cell in space.groups.items()
    }
    return Architecture.of(space, choices)


def mixed(space: Space) -> Architecture:
    """Another subset on every edge, some of them empty."""
    choices = {}
    for group, cell in space.groups.items():
        names = [[n for n in edge.names if n != "none"] for edge in cell.edges]
        chosen = [
            [n for o, n in enumerate(own) if (e + o) % 3] if e % 4 != 3 else []
            for e, own in enumerate(names)
        ]
        choices[group] = {
            edge.name: tuple(own) for edge, own in zip(cell.edges, chosen, strict=True) if own
        }
    return Architecture.of(space, choices)


def network(space: Space, architecture: Architecture, *, auxiliary: bool = False) -> Network:
    """Untrained, with scales, shifts and running statistics that say something."""
    torch.manual_seed(0)
    net = final_network(space, architecture, auxiliary=auxiliary)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 2.0)
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
    return net


def outcome(net: Network, x: Tensor, *, training: bool, drop: float) -> dict[str, Tensor]:
    """Logits, gradients by the input and all parameters, and buffers after one pass."""
    net.train(training).set_drop_path(drop)
    x = x.clone().requires_grad_()
    torch.manual_seed(2)
    outputs = net(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    leaves = {"x": x} | dict(net.named_parameters())
    loss = sum((y * torch.linspace(-1, 1, y.numel()).view_as(y).to(y)).sum() for y in outputs)
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    found = {f"logits.{i}": y.detach() for i, y in enumerate(outputs)}
    found |= dict(zip(leaves, gradients, strict=True)) | {"draws": torch.rand(1)}
    return found | {name: buffer.clone() for name, buffer in net.named_buffers()}


def assert_equal(
    space: Space,
    architecture: Architecture,
    *,
    training: bool = True,
    drop: float = 0.0,
    batch: int = 4,
    times: float = 4,
) -> None:
    """As near the reference in float64 as the reference in float32 is, so many times."""
    net = network(space, architecture, auxiliary=True)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(batch, *space.input_shape)
    how = dict(training=training, drop=drop)
    expected = outcome(net.double(), x.double(), **how)
    net.float()
    largest = max(float(expected[name].abs().max()) for name in dict(net.named_parameters()))

    def found_by(form: str) -> dict[str, Tensor]:
        for name, value in net.state_dict().items():
            value.copy_(start[name])  # a pass moves the statistics
        use_form(net, form, CPU)
        return outcome(net, x, **how)

    def differences(found: Mapping[str, Tensor]) -> dict[str, float]:
        assert list(found) == list(expected)
        scales = {n: max(float(t.abs().max()), 1e-3 * largest) for n, t in expected.items()}
        return {
            n: float((found[n].double() - t).abs().max()) / scales[n] for n, t in expected.items()
        }

    rounding = max(differences(found_by("reference")).values())
    found = differences(found_by("native"))
    assert {n: d for n, d in found.items() if not d <= max(2e-5, times * rounding)} == {}
    assert found["draws"] == 0.0


@pytest.mark.parametrize("candidate", [name for name in darts.CANDIDATES if name != "none"])
def test_each_operation(candidate: str):
    space = darts_space()
    assert_equal(space, kept(space, candidate), drop=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_several_operations_on_an_edge_and_none(training: bool, drop: float):
    space = darts_space()
    assert_equal(space, mixed(space), training=training, drop=drop)


@pytest.mark.parametrize("channels", [1, 8, 16, pytest.param(20, marks=pytest.mark.slow)])
def test_any_number_of_channels(channels: int):
    space = darts_space(channels)
    # one weight before a batch norm has a gradient of rounding alone
    assert_equal(space, mixed(space), drop=0.2, times=20 if channels == 1 else 4)


@pytest.mark.parametrize("size", [(8, 8), (13, 6)])
def test_any_size(size: tuple[int, int]):
    space = darts_space(4, size)
    assert_equal(space, mixed(space), drop=0.2)


def test_a_stem_that_halves_the_resolution_before_the_first_cell():
    space = darts_space(4, (32, 32), stem="imagenet")
    assert_equal(space, kept(space, "sep_conv_3x3", "skip_connect"), drop=0.2)


def test_goldnas_whose_norms_have_no_scale():
    space = goldnas.goldnas(
        layers=3, nodes=2, channels=6, candidates=list(goldnas.CANDIDATES),
        input_shape=(3, 7, 8), classes=4,
    )  # fmt: skip
    assert_equal(space, kept(space, *goldnas.CANDIDATES), drop=0.3)


def test_nasbench201_with_its_dense_convolutions():
    space = nasbench201.nasbench201(
        layers=5, nodes=3, channels=5, candidates=list(nasbench201.CANDIDATES),
        input_shape=(3, 9, 8), classes=4,
    )  # fmt: skip
    architecture = kept(space, "nor_conv_3x3", "avg_pool_3x3", "skip_connect")
    assert_equal(space, architecture, drop=0.3)


def native(space: Space, architecture: Architecture) -> Network:
    net = network(space, architecture)
    use_form(net, "native", CPU)
    return net


def test_operations_of_one_kind_out_of_one_source_run_together():
    space = darts_space()
    net = native(space, kept(space, "sep_conv_3x3", "dil_conv_3x3"))
    net(torch.randn(2, 3, 9, 11))
    form = net.layers[0].form
    assert isinstance(form, NativeFinal)
    bundles = form.sources[0].bundles
    assert [list(bundle.places) for bundle in bundles] == [[(0, 0), (2, 0)], [(0, 1), (2, 1)]]


class Noisy(nn.Module):
    """An operation from outside, which draws numbers of its own and has weights."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * (1 + 0.1 * torch.rand(x.size(0), 1, 1, 1).to(x))


def noisy(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    return Noisy(c_in, stride)


def test_an_operation_from_outside_runs_in_torch_beside_the_others():
    space = darts.darts(
        layers=3, nodes=2, channels=6, candidates=["sep_conv_3x3", "noisy", "max_pool_3x3"],
        input_shape=(3, 8, 8), classes=4, operations={"noisy": noisy},
    )  # fmt: skip
    assert_equal(space, kept(space, "sep_conv_3x3", "noisy", "max_pool_3x3"), drop=0.3)


def test_results_do_not_depend_on_threads():
    space, found = darts_space(5), []
    architecture = mixed(space)
    x = torch.randn(5, 15, 9, 11)
    for threads in (1, 2, 3):
        cell = native(space, architecture).layers[0]
        assert isinstance(cell, CellModule)
        for edge in cell.edges.values():
            edge.drop = 0.3
        torch.set_num_threads(1)
        state = cell.form.preprocessed([x, x])[0].detach().requires_grad_()
        torch.set_num_threads(threads)
        y = [y for _, y in cell.form.from_node(0, state, None)]
        leaves = [state, *cell.edges["0-2"].parameters()]
        found.append([*y, *torch.autograd.grad(sum(t.pow(2).sum() for t in y), leaves)])
    assert all(torch.equal(a, b) for other in found for a, b in zip(found[0], other, strict=True))


def test_a_copied_net_runs_on_its_own_weights():
    space = darts_space()
    net, x = native(space, mixed(space)).eval(), torch.randn(3, 3, 9, 11)
    before = net(x)
    copied = copy.deepcopy(net)
    for p in copied.parameters():
        p.data.zero_()
    assert torch.equal(net(x), before)
    assert not torch.equal(copied(x), before)


def test_replaced_weights_are_the_ones_that_run():
    space = darts_space()
    net, x = native(space, mixed(space)), torch.randn(3, 3, 9, 11)
    reference = copy.deepcopy(net)
    use_form(reference, "reference", CPU)
    weights = {name: 0.3 * torch.randn_like(p) for name, p in net.named_parameters()}
    expected = functional_call(reference, weights, (x,))
    torch.testing.assert_close(functional_call(net, weights, (x,)), expected, atol=1e-4, rtol=1e-4)


def test_a_checkpointed_cell_is_the_same_cell():
    space, found = darts_space(), []
    cell = native(space, mixed(space)).layers[0]
    x = torch.randn(3, 18, 9, 11, requires_grad=True)
    for edge in cell.edges.values():
        edge.drop = 0.3
    for run in (cell, lambda *rest: checkpointed(cell, *rest)):
        torch.manual_seed(0)
        y = run((x, x), None)
        found.append([y, *torch.autograd.grad(y.pow(2).sum(), [x, *cell.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_under_autocast_and_in_double_precision_it_is_the_reference():
    space = darts_space()
    architecture = mixed(space)
    net, reference = native(space, architecture), network(space, architecture)
    x = torch.randn(3, 3, 9, 11)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), reference(x))
    assert torch.equal(net.double()(x.double()), reference.double()(x.double()))


def test_auto_is_native_and_fused_is_the_reference():
    space = darts_space()
    net = network(space, mixed(space))
    expected = {"auto": NativeFinal, "native": NativeFinal, "fused": None, "reference": None}
    for form, kind in expected.items():
        use_form(net, form, CPU)
        assert [c.form and type(c.form) for c in net.layers] == [kind] * 3


def test_gradients_stay_where_drop_path_drops_everything():
    space = darts_space()
    net = native(space, kept(space, "sep_conv_3x3"))
    found = outcome(net, torch.randn(3, 3, 9, 11), training=True, drop=1 - 1e-7)
    weights = [found[n] for n, _ in net.layers[0].edges.named_parameters(prefix="layers.0.edges")]
    assert all((w == 0).all() for w in weights)


def test_names_and_values_of_weights_stay():
    space = darts_space()
    net = network(space, mixed(space))
    before = {name: t.clone() for name, t in net.state_dict().items()}
    use_form(net, "native", CPU)
    after = net.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
