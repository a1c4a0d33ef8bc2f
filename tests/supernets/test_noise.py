"""Noise as an operation: alone, in every form of a network, and in the counts.

Source: Zela et al. 2020, arXiv:1909.09656, section 3.
"""

from collections.abc import Callable

import pytest
import torch
from equal_forms import CPU, everything, outcome
from torch import Tensor

from archsmith.parallel import data_parallel
from archsmith.parallel.data_parallel import GlobalNoise, Portion
from search_spaces.architecture import Architecture
from search_spaces.darts import darts
from search_spaces.ops import Noise
from search_spaces.space import Space
from supernets.checkpointing import checkpointed
from supernets.costs import candidate_macs
from supernets.final_costs import final_costs
from supernets.forms import use_form
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.native import build
from supernets.network import Network, final_network, supernet

FORMS = [
    "fused",
    pytest.param("native", marks=pytest.mark.skipif(not build.compiler(), reason="no compiler")),
]


def noise(c_in: int = 4, c_out: int = 4, stride: int = 1) -> Noise:
    return Noise(c_in, c_out, stride, affine=False, search=True)


def space_of(*candidates: str) -> Space:
    return darts(
        layers=3, nodes=2, channels=4, candidates=list(candidates), input_shape=(3, 9, 11),
        classes=4,
    )  # fmt: skip


def seeded(run: Callable[[], Tensor]) -> Tensor:
    torch.manual_seed(3)
    return run()


def every_candidate(space: Space) -> Architecture:
    """Two edges into each node, each with all candidates."""
    cells = space.groups.items()
    return Architecture.of(
        space,
        {name: {e.name: e.names for e in cell.edges if e.source < 2} for name, cell in cells},
    )


@pytest.mark.parametrize(("stride", "shape"), [(1, (2, 6, 9, 11)), (2, (2, 6, 5, 6))])
def test_robustdarts_7_noise_has_the_shape_of_the_output(stride: int, shape: tuple[int, ...]):
    assert noise(4, 6, stride)(torch.zeros(2, 4, 9, 11)).shape == shape


@pytest.mark.parametrize("training", [True, False])
def test_robustdarts_7_noise_is_standard_normal_and_drawn_anew(training: bool):
    op, x = noise().train(training), torch.full((8, 4, 32, 32), 7.0)
    y = op(x)
    assert y.mean().item() == pytest.approx(0, abs=4 / y.numel() ** 0.5)
    assert y.var().item() == pytest.approx(1, abs=4 * (2 / y.numel()) ** 0.5)
    assert not torch.equal(op(x), y)


def test_robustdarts_7_noise_ignores_its_input():
    x = torch.zeros(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    y = seeded(lambda: noise()(x))
    assert torch.equal(y, seeded(lambda: noise()(x + 1)))
    assert y.dtype == torch.float64
    assert not y.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("k", [1, 2])
def test_a_supernet_draws_the_same_noise_in_every_form(form: str, k: int, training: bool):
    net = supernet(space_of("noise", "sep_conv_3x3", "skip_connect"), partial_of(k))
    x = torch.randn(3, 3, 9, 11)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    found = []
    for each in ("reference", form):
        net.load_state_dict(start)
        use_form(net, each, CPU)
        torch.manual_seed(3)
        found.append(outcome(net, x, everything, factors=True, training=training))
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, atol=2e-4, rtol=2e-3, msg=name)


def partial_of(k: int) -> Callable[..., MixedOp | PartialMixedOp]:
    return MixedOp if k == 1 else lambda *args, **more: PartialMixedOp(*args, k=k, **more)


@pytest.mark.skipif(not build.compiler(), reason="no compiler")
@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_a_final_network_draws_the_same_noise_and_drop_path_in_both_forms(drop: float):
    space = space_of("noise", "sep_conv_3x3")
    net = final_network(space, every_candidate(space)).train()
    net.set_drop_path(drop)
    x = torch.randn(3, 3, 9, 11)
    found = []
    for form in ("reference", "native"):
        use_form(net, form, CPU)
        found.append(seeded(lambda: net(x)))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)


def test_a_checkpointed_cell_draws_the_same_noise_again():
    space = space_of("noise", "sep_conv_3x3")
    net = final_network(space, every_candidate(space))
    cell, x = net.layers[0], torch.randn(2, 12, 9, 11)
    weight = next(iter(cell.edges.values())).ops[1].first[1].weight
    found = []
    for run in (lambda: cell([x, x], None), lambda: checkpointed(cell, [x, x], None)):
        loss = seeded(run).pow(2).sum()
        torch.rand(1)
        found.append(torch.autograd.grad(loss, weight)[0])
    torch.testing.assert_close(found[1], found[0])


def test_noise_costs_nothing():
    space = space_of("noise", "sep_conv_3x3")
    for table in candidate_macs(supernet(space, MixedOp)).values():
        assert table[:, 0].eq(0).all()
        assert table[:, 1].gt(0).all()
    for cost in final_costs(space).values():
        assert all(table[:, 0].eq(0).all() for table in cost.tables.values())


def test_a_network_of_noise_alone_trains_what_follows_it():
    space = space_of("noise")
    net = final_network(space, every_candidate(space))
    net(torch.randn(2, 3, 9, 11)).sum().backward()
    assert net.head[-1].weight.grad.abs().sum() > 0


def test_each_process_uses_its_part_of_the_noise_for_all_images(monkeypatch):
    """Images 1 and 2 of 5; a pass of shapes alone takes the batch that it gets."""
    whole = seeded(lambda: noise()(torch.zeros(5, 4, 8, 8)))
    op = noise()
    op.__class__ = GlobalNoise
    monkeypatch.setattr(data_parallel.portions, "current", Portion(1, 3, 5, 1))
    assert torch.equal(seeded(lambda: op(torch.zeros(2, 4, 8, 8))), whole[1:3])
    assert op(torch.zeros(1, 4, 8, 8, device="meta")).shape == (1, 4, 8, 8)


def test_the_noise_of_several_processes_is_replaced(monkeypatch):
    monkeypatch.setattr(data_parallel.distributed, "size", lambda: 2)
    net: Network = supernet(space_of("noise", "sep_conv_3x3"), MixedOp)
    data_parallel.across_processes(net)
    kinds = {type(module) for module in net.modules() if isinstance(module, Noise)}
    assert kinds == {GlobalNoise}
