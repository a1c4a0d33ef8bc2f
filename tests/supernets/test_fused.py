"""The fused form equals the reference in float64: outputs, every gradient, every buffer."""

from collections.abc import Callable
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
from helpers import search
from test_every_config import composed, make
from torch import Tensor, nn
from torch.func import functional_call

from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Record
from search_spaces import darts
from search_spaces.space import Space
from supernets.forms import use_form
from supernets.fused import FusedCell
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.network import CellModule, Network, supernet


@pytest.mark.parametrize("candidate", [name for name in darts.CANDIDATES if name != "none"])
@pytest.mark.parametrize("k", [1, 2])
def test_each_candidate_of_darts(candidate: str, k: int):
    assert_equal(space_of("darts", 6, [candidate]), partial(PartialMixedOp, k=k))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choose", [everything, pruned, drawn])
@pytest.mark.parametrize("training", [True, False])
def test_each_family(family: str, choose: Choose, training: bool):
    assert_equal(space_of(family, 5), MixedOp, choose=choose, training=training)


@pytest.mark.parametrize("training", [True, False])
def test_norms_with_scale_and_shift(training: bool):
    assert_equal(space_of("darts", 5), MixedOp, affine=True, choose=pruned, training=training)


@pytest.mark.parametrize("choose", [everything, pruned])
@pytest.mark.parametrize("factors", [True, False])
def test_partial_channels(choose: Choose, factors: bool):
    mixed_op = partial(PartialMixedOp, k=4)
    assert_equal(space_of("darts", 8), mixed_op, choose=choose, factors=factors)


def nets(space: Space, mixed_op: Callable[..., nn.Module] = MixedOp) -> list[Network]:
    """Equal weights, in the reference and in the fused form."""
    found = []
    for form in ("reference", "fused"):
        torch.manual_seed(0)
        found.append(supernet(space, mixed_op).double())
        use_form(found[-1], form, CPU)
    return found


class Shifted(nn.Module):
    """An operation the fused form has never heard of."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def shifted(c_in: int, c_out: int, stride: int, *, affine: bool, search: bool) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), Shifted())


class DoubledOp(MixedOp):
    def forward(self, x: Tensor, gates: Tensor, active: object) -> Tensor | None:
        return super().forward(x, 2 * gates, active)


def test_what_it_does_not_know_runs_as_in_the_reference():
    space = darts.darts(
        layers=3, nodes=2, channels=4, candidates=["sep_conv_3x3", "shifted"],
        input_shape=(3, 8, 8), classes=3, operations={"shifted": shifted},
    )  # fmt: skip
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for mixed_op in (MixedOp, DoubledOp):
        reference, fused = nets(space, mixed_op)
        assert torch.equal(reference(x, mixture_of(space)), fused(x, mixture_of(space)))


def test_replaced_weights_are_the_ones_that_run():
    space = space_of("darts", 4)
    reference, fused = nets(space)
    x = torch.randn(2, *space.input_shape, dtype=torch.float64)
    for seed in (1, 2):
        torch.manual_seed(seed)
        weights = {name: torch.randn_like(p) for name, p in reference.named_parameters()}
        expected, found = (
            functional_call(net, weights, (x, mixture_of(space))) for net in (reference, fused)
        )
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.slow
def test_a_gradient_can_be_differentiated_again():
    space = space_of("darts", 4)
    x, found = torch.randn(3, *space.input_shape, dtype=torch.float64), []
    for net in nets(space):
        mixture = mixture_of(space)
        gates = [part.gates for part in mixture.groups.values()]
        loss = net(x, mixture).pow(2).sum()
        weights = list(net.parameters())
        gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        found.append(torch.autograd.grad(sum(g.sum() for g in gradients), gates))
    for fused, reference in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(fused, reference, atol=1e-7, rtol=1e-7)


def test_pruning_is_noticed():
    space = space_of("darts", 4)
    reference, fused = nets(space)
    x = torch.randn(2, *space.input_shape, dtype=torch.float64)
    for last in (8, 5, 1):
        mixture = mixture_of(space, lambda alive, last=last: alive & (torch.arange(8) < last))
        torch.testing.assert_close(fused(x, mixture), reference(x, mixture), atol=1e-10, rtol=1e-10)


def test_statistics_stand_still_when_frozen_and_average_without_momentum():
    space = space_of("darts", 4)
    for momentum, track in ((None, True), (0.1, False)):
        both = nets(space)
        for net in both:
            for norm in net.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.momentum, norm.track_running_stats = momentum, track
        for seed in range(3):
            torch.manual_seed(seed)
            x = torch.randn(2, *space.input_shape, dtype=torch.float64)
            for net in both:
                net(x, mixture_of(space))
        for expected, found in zip(both[0].buffers(), both[1].buffers(), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_names_shapes_and_modules_stay(toy_darts: Space):
    reference, fused = nets(toy_darts)
    assert str(reference) == str(fused)
    fused.load_state_dict(reference.state_dict())
    cells = [m for m in fused.modules() if isinstance(m, CellModule)]
    assert all(isinstance(cell.form, FusedCell) for cell in cells)
    use_form(fused, "reference", CPU)
    assert all(cell.form is None for cell in cells)


def test_an_unknown_form_is_refused(toy_darts: Space):
    with pytest.raises(ValueError, match=r"form: expected one of auto, reference, fused"):
        use_form(supernet(toy_darts, MixedOp), "quick", CPU)


@pytest.mark.slow
def test_a_search_in_float64_finds_the_architecture_of_the_reference(toy_darts, tmp_path):
    found = {}
    for form in ("reference", "fused"):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            strategy = make(composed("strategy=darts").strategy, space=digits(toy_darts))
            net = supernet(strategy.space, strategy.mixed_op)
        finally:
            torch.set_default_dtype(torch.float32)
        net.register_forward_pre_hook(lambda module, given: (given[0].double(), *given[1:]))
        use_form(net, form, CPU)
        strategy.setup(net, CPU)
        found[form] = search(
            net,
            strategy,
            make(composed("data=digits").data).loaders(64, one_level=False, seed=0),
            SearchSettings(epochs=2, batch_size=64),
            record=Record(tmp_path / form),
            checkpoints=Checkpoints(tmp_path / form, "search", {}),
            meta={},
        )
    reference, fused = found["reference"], found["fused"]
    assert fused.architecture.choices == reference.architecture.choices
    assert fused.metrics == pytest.approx(reference.metrics, rel=1e-6)


def digits(space: Space) -> Space:
    return space.resize(input_shape=(1, 8, 8))
