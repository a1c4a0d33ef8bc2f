"""The native kernels equal the reference: outputs, every gradient, every buffer.

Float32 is compared with the reference in float64. What a pass of several cells makes of rounding
depends on the net, so the reference in float32 is the measure: the kernels may be off by a small
multiple of its error, or by 2e-5 of the largest value.
"""

import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equal_forms import CPU, Choose, drawn, everything, pruned
from equal_forms import assert_native_equal as assert_equal
from torch import nn
from torch.func import functional_call

from search_spaces import darts, goldnas, nasbench201
from search_spaces.darts import CANDIDATES
from search_spaces.ops import FactorizedReduce, ReLUConvBN
from search_spaces.space import Space
from supernets import forms
from supernets.forms import twice_differentiable, use_form
from supernets.fused import FusedCell
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.native import build
from supernets.native.cell import NativeCell
from supernets.native.projection import Projection, ProjectionGradients
from supernets.native.source import Given, Gradients, Source
from supernets.network import supernet

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler on this machine")


def space_of(channels: int, candidates: list[str] | None = None, size: tuple[int, int] = (9, 11)):
    return darts.darts(
        layers=3,
        nodes=2,
        channels=channels,
        candidates=candidates or list(CANDIDATES),
        input_shape=(3, *size),
        classes=4,
    )


@pytest.mark.slow
@pytest.mark.parametrize("candidate", [name for name in CANDIDATES if name != "none"])
@pytest.mark.parametrize("k", [1, 2])
def test_each_candidate(candidate: str, k: int):
    assert_equal(space_of(6, [candidate]), partial(PartialMixedOp, k=k))


@pytest.mark.parametrize(
    "channels", [1, 16, *(pytest.param(c, marks=pytest.mark.slow) for c in (3, 8, 12, 20))]
)
def test_any_number_of_channels(channels: int):
    # one weight before a batch norm has a gradient of rounding alone
    assert_equal(space_of(channels), MixedOp, times=20 if channels == 1 else 4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 6)])
def test_any_size(size: tuple[int, int]):
    assert_equal(space_of(4, size=size), MixedOp, batch=4)


@pytest.mark.slow
@pytest.mark.parametrize("choose", [everything, pruned, drawn])
@pytest.mark.parametrize("training", [True, False])
def test_pruned_and_drawn_candidates_in_training_and_in_evaluation(choose: Choose, training: bool):
    assert_equal(space_of(8), MixedOp, choose=choose, training=training)


@pytest.mark.parametrize("training", [True, False])
def test_norms_with_scale_and_shift(training: bool):
    assert_equal(space_of(5), MixedOp, affine=True, choose=pruned, training=training)


@pytest.mark.parametrize("choose", [everything, pruned])
@pytest.mark.parametrize("factors", [True, False])
def test_partial_channels(choose: Choose, factors: bool):
    mixed_op = partial(PartialMixedOp, k=4)
    assert_equal(space_of(8), mixed_op, choose=choose, factors=factors)


def test_normalised_identities():
    space = goldnas.goldnas(
        layers=3, nodes=2, channels=6, candidates=list(goldnas.CANDIDATES),
        input_shape=(3, 7, 8), classes=4,
    )  # fmt: skip
    assert_equal(space, MixedOp)


def mixture_of(space: Space) -> Mixture:
    groups = {}
    for name, cell in space.groups.items():
        gates = torch.linspace(0.1, 0.9, len(cell.edges) * cell.width).view(-1, cell.width)
        active = [range(len(edge.names)) for edge in cell.edges]
        groups[name] = GroupMixture(gates.requires_grad_(), None, active)
    return Mixture(groups)


def native(space: Space):
    net = supernet(space, MixedOp)
    use_form(net, "native", CPU)
    return net


def gradients(net: nn.Module, x: torch.Tensor, mixture: Mixture) -> list[torch.Tensor]:
    leaves = [part.gates for part in mixture.groups.values()] + list(net.parameters())
    return list(torch.autograd.grad(net(x, mixture).pow(2).sum(), leaves))


def test_results_do_not_depend_on_threads():
    space, found = space_of(5), []
    for threads in (1, 2, 3):
        torch.manual_seed(0)
        net, x = native(space), torch.randn(5, 3, 9, 11)
        cell = net.layers[0]
        mixture = mixture_of(space)
        torch.set_num_threads(1)
        inputs = [pre(x) for pre, x in zip(cell.preprocess, (net.stem(x),) * 2, strict=True)]
        torch.set_num_threads(threads)
        part = mixture.groups["normal"]
        y = [y for _, y in cell.form.from_node(0, inputs[0], part)]
        leaves = [part.gates, *cell.edges["0-2"].parameters()]
        found.append([*y, *torch.autograd.grad(sum(t.pow(2).sum() for t in y), leaves)])
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


def test_alpha_gradients_are_the_same_without_weight_gradients():
    space = space_of(4)
    net, x, mixture = native(space), torch.randn(3, 3, 9, 11), mixture_of(space)
    gates = [part.gates for part in mixture.groups.values()]
    expected = torch.autograd.grad(net(x, mixture).pow(2).sum(), gates)
    net.requires_grad_(False)
    found = torch.autograd.grad(net(x, mixture).pow(2).sum(), gates)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_replaced_weights_are_the_ones_that_run():
    space = space_of(4)
    net, x = native(space), torch.randn(3, 3, 9, 11)
    reference = copy.deepcopy(net)
    use_form(reference, "reference", CPU)
    weights = {name: 0.3 * torch.randn_like(p) for name, p in net.named_parameters()}
    expected = functional_call(reference, weights, (x, mixture_of(space)))
    found = functional_call(net, weights, (x, mixture_of(space)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_copied_net_runs_on_its_own_weights():
    space = space_of(4)
    net, x = native(space).eval(), torch.randn(3, 3, 9, 11)
    before = net(x, mixture_of(space))
    copied = copy.deepcopy(net)
    for p in copied.parameters():
        p.data.zero_()
    assert torch.equal(net(x, mixture_of(space)), before)
    assert not torch.equal(copied(x, mixture_of(space)), before)


def test_a_nan_is_not_lost():
    space = space_of(4)
    net = native(space)
    for form in ("reference", "native"):
        use_form(net, form, CPU)
        for candidate in range(1, 8):
            state = torch.randn(3, 4, 9, 11)
            state[1, 2, 4, 5] = float("nan")
            groups = mixture_of(space).groups["normal"]._replace(active=[[candidate]] * 5)
            cell = net.layers[0].form or net.layers[0]
            assert all(y.isnan().any() for _, y in cell.from_node(0, state, groups))


def test_second_derivatives_come_from_torch_operations():
    space = space_of(4)
    net, x, mixture = native(space), torch.randn(3, 3, 9, 11), mixture_of(space)
    weights = list(net.parameters())
    gates = [part.gates for part in mixture.groups.values()]

    def twice() -> list[torch.Tensor]:
        loss = net(x, mixture).pow(2).sum()
        first = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        return list(torch.autograd.grad(sum(g.sum() for g in first), gates))

    with pytest.raises(RuntimeError, match=r"within supernets\.forms\.twice_differentiable"):
        twice()
    with twice_differentiable():
        assert all(g.isfinite().all() for g in twice())


@pytest.mark.parametrize(
    ("lanes", "family", "expected"),
    [(4, darts, NativeCell), (4, nasbench201, FusedCell), (8, nasbench201, NativeCell)],
)
def test_auto_takes_the_form_that_the_table_says_is_faster(
    lanes: int, family: Any, expected: type, monkeypatch
):
    monkeypatch.setattr(forms, "library", lambda: SimpleNamespace(lanes=lambda: lanes))
    sizes = dict(input_shape=(3, 8, 8), classes=4, channels=4, nodes=2)
    if family is darts:
        space = darts.darts(layers=3, candidates=["sep_conv_3x3", "none"], **sizes)
    else:
        space = nasbench201.nasbench201(layers=5, candidates=["nor_conv_3x3", "none"], **sizes)
    net = supernet(space, MixedOp)
    use_form(net, "auto", CPU)
    assert type(net.layers[0].form) is expected


def test_the_table_of_gains_knows_the_vectors_at_hand():
    kernels = build.library()
    assert kernels is not None
    assert kernels.lanes() in forms.NATIVE_GAIN


def test_without_a_compiler_torch_operations_run_and_it_is_said_once(
    monkeypatch, caplog, toy_darts: Space
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.library.cache_clear()
    try:
        for _ in range(2):
            net = supernet(toy_darts, MixedOp)
            use_form(net, "auto", CPU)
        assert type(net.layers[0].form).__name__ == "FusedCell"
        assert [record.message.count("no C++ compiler") for record in caplog.records] == [1]
        with pytest.raises(ValueError, match=r"form: native kernels cannot be .* set it to fused"):
            use_form(net, "native", CPU)
    finally:
        build.library.cache_clear()


def test_a_compiler_that_fails_is_named_and_torch_operations_run(monkeypatch, caplog, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    build.library.cache_clear()
    try:
        assert build.library() is None
        assert "broken cannot build the kernels" in caplog.text
        assert "out of order" in caplog.text
    finally:
        build.library.cache_clear()


def source_of(channels: int = 4):
    """A source of all candidates on two edges, and what a pass of it reads."""
    space = space_of(channels)
    cell, part = native(space).layers[0], mixture_of(space).groups["normal"]
    source = cell.form.split(cell.form.plan(0, part)[0][0]).plan.steps[0].source
    x = torch.randn(3, channels, 9, 11)
    given = Given(
        x=x, training=True, gates=torch.rand(len(source.kinds) * source.edges), factors=None,
        keep=None, moments=source.moments(x), affine=[None] * len(source.kinds),
        weights=[w.detach() for w in source.weights], kept=[None] * len(source.kinds),
    )  # fmt: skip
    return source, given


def outputs(source: Source, x: torch.Tensor) -> list[torch.Tensor]:
    return [torch.empty_like(x) for _ in range(source.edges)]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (
            {"x": lambda x: x.double()},
            TypeError,
            r"x is torch.float64 on cpu, expected torch.float",
        ),
        ({"x": lambda x: x.to("meta")}, TypeError, r"x is torch.float32 on meta, .* on cpu"),
        ({"x": lambda x: x[:, :, 1:]}, ValueError, r"y is \(3, 4, 9, 11\), expected \(3, 4, 8, 11"),
        ({"x": lambda x: x[0]}, ValueError, r"x is \(4, 9, 11\), expected 4 dimensions"),
        ({"x": lambda x: x[:, :3]}, ValueError, r"x is \(3, 3, 9, 11\), expected \(3, 4, 9, 11\)"),
        ({"gates": lambda g: g[1:]}, ValueError, r"gates is \(13,\), expected \(14,\)"),
        ({"gates": lambda g: g.repeat(2)[::2]}, ValueError, r"gates .* expected it contiguous"),
        ({"factors": lambda f: torch.ones(1)}, ValueError, r"factors is \(1,\), expected \(2,\)"),
        ({"keep": lambda k: torch.ones(2, 3)}, ValueError, r"keep is \(2, 3\), expected \(3, 2\)"),
        ({"moments": lambda m: m[1:]}, ValueError, r"moments is \(\d+,\), expected"),
        (
            {"affine": lambda a: [torch.ones(2, 2, 2, 4), *a[1:]]},
            ValueError,
            r"scale and shift is \(2, 2, 2, 4\), expected \(1, 2, 2, 4\)",
        ),
        ({"weights": lambda w: [t.double() for t in w]}, TypeError, "a weight is torch.float64"),
        ({"weights": lambda w: [t[:3] for t in w]}, ValueError, r"a weight is \(3, 1, 3, 3\)"),
        ({"weights": lambda w: w[:-1]}, ValueError, "weights, expected"),
        ({"kept": lambda k: k[1:]}, ValueError, "6 parts of kept maps, expected 7"),
        ({"kept": lambda k: [torch.ones(3), *k[1:]]}, ValueError, r"kept maps is \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_kernel_runs(change, error, said: str, monkeypatch):
    source, given = source_of()
    y, adds = outputs(source, given.x), [False] * source.edges
    source.forward(given, y, adds)
    monkeypatch.setattr(source, "_call", lambda *_: pytest.fail("a kernel ran"))
    changed = {name: turn(getattr(given, name)) for name, turn in change.items()}
    with pytest.raises(error, match=said):
        source.forward(replace(given, **changed), y, adds)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y[:-1], "1 outputs, expected 2"),
        (lambda y: [t[..., 1:] for t in y], r"y is \(3, 4, 9, 10\), expected"),
        (lambda y: [t[:1].expand_as(t) for t in y], "y .* memory of its own"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(change, said: str):
    source, given = source_of()
    source.library = None
    with pytest.raises(ValueError, match=said):
        source.forward(given, change(outputs(source, given.x)), [False] * source.edges)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"x": lambda dx: dx[..., 1:]}, ValueError, r"dx is \(3, 4, 9, 10\), expected"),
        ({"gates": lambda g: g.double()}, TypeError, "the gates' gradient is torch.float64"),
        ({"factors": lambda f: f[1:]}, ValueError, r"the factors' gradient is \(1,\)"),
        ({"weights": lambda w: w[1:]}, ValueError, "the weights' gradient is"),
        ({"affine": lambda a: [torch.ones(3), *a[1:]]}, ValueError, r"scale and shift is \(3,\)"),
    ],
)
def test_memory_for_gradients_that_does_not_fit_is_refused(change, error, said: str):
    source, given = source_of()
    dy = outputs(source, given.x)
    to = Gradients(
        torch.empty_like(given.x), False, torch.empty_like(given.gates),
        torch.empty(source.edges), torch.empty(sum(source.floats)), [None] * len(source.kinds),
    )  # fmt: skip
    source.backward(given, dy, to)
    source.library = None
    changed = {name: turn(getattr(to, name)) for name, turn in change.items()}
    with pytest.raises(error, match=said):
        source.backward(given, dy, replace(to, **changed))


def test_convolutions_of_other_channels_than_the_edge_are_refused():
    source, given = source_of()
    source.kinds[-1].convs[-1][0].in_channels = 5
    with pytest.raises(ValueError, match="has not its 4 channels"):
        source.forward(given, outputs(source, given.x), [False] * source.edges)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_does_not_fit_a_projection_is_refused(stride: int):
    op = (ReLUConvBN(3, 4, 1, affine=False), FactorizedReduce(3, 4, affine=False))[stride - 1]
    projection = Projection.of(op, build.library())
    x, y = torch.randn(2, 3, 5, 5), torch.empty(2, 4, -(-5 // stride), -(-5 // stride))
    weights = [m.weight.detach() for m in projection.convs]
    given = dict(x=x, y=y, moments=projection.moments(x), affine=None, weights=weights, kept=None)
    projection.call(True, **given)
    for name, value in (
        ("x", x[:, :2]), ("x", x.double()), ("y", y[:, :3]), ("moments", given["moments"][1:]),
        ("weights", [w[1:] for w in weights]), ("into", ProjectionGradients(x[1:], None, None)),
        ("into", ProjectionGradients(torch.empty_like(x), torch.empty(3), None)),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match="native kernels: "):
            projection.call(True, **given | {name: value})
