"""Drop-path of a supernet: the same in every form, the identity on average, off in evaluation."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from equal_forms import CPU, Choose, assert_native_equal, differences, everything, pruned
from torch import Tensor, nn

from archsmith.parallel import data_parallel
from search_spaces.darts import CANDIDATES, darts
from search_spaces.space import Space
from supernets.forms import use_form
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.native.build import library
from supernets.network import CellModule, supernet

PARTIAL = partial(PartialMixedOp, k=2)


def space(candidates: list[str]) -> Space:
    return darts(
        layers=3, nodes=2, channels=4, candidates=candidates, input_shape=(3, 8, 8), classes=3
    )


@pytest.fixture
def dropping(monkeypatch) -> None:
    """Half of the outputs are dropped, the same ones in every form."""

    def kept(cell: CellModule, x: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(len(x) + cell.stride)
        return (torch.rand(len(x), len(cell.cell.edges), generator=source) < 0.5).float()

    monkeypatch.setattr(CellModule, "drop", 0.5)
    monkeypatch.setattr(CellModule, "kept", kept)


@pytest.mark.slow
@pytest.mark.usefixtures("dropping")
@pytest.mark.parametrize("mixed_op", [MixedOp, PARTIAL])
@pytest.mark.parametrize("choose", [everything, pruned])
def test_the_fused_form_drops_what_the_reference_drops(
    mixed_op: Callable[..., nn.Module], choose: Choose
):
    (found,) = differences(
        space(list(CANDIDATES)), mixed_op, ["fused"], torch.float64, choose=choose
    )
    assert {name: value for name, value in found.items() if not value < 1e-9} == {}


@pytest.mark.slow
@pytest.mark.usefixtures("dropping")
@pytest.mark.skipif(library() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("mixed_op", [MixedOp, PARTIAL])
@pytest.mark.parametrize(
    "candidates",
    [["skip_connect", "sep_conv_3x3"], ["max_pool_3x3"], list(CANDIDATES)],
)
@pytest.mark.parametrize("factors", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_native_form_drops_what_the_reference_drops(
    mixed_op: Callable[..., nn.Module], candidates: list[str], factors: bool
):
    assert_native_equal(space(candidates), mixed_op, factors=factors)


def logits(form: str, *, training: bool, drop: float, images: int = 2) -> Tensor:
    torch.manual_seed(0)
    toy = space(["skip_connect", "avg_pool_3x3"])
    net = supernet(toy, MixedOp).train(training)
    use_form(net, form, CPU)
    net.set_drop_path(drop)
    groups = {
        name: GroupMixture(torch.full((len(c.rows), 2), 0.5), None, [[0, 1]] * len(c.rows))
        for name, c in toy.choices.items()
    }
    found = net(torch.randn(images, 3, 8, 8), Mixture(groups))
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("form", ["reference", "fused"])
def test_robustdarts_6_nothing_is_dropped_in_evaluation(form: str):
    whole = logits(form, training=False, drop=0.0)
    assert torch.equal(logits(form, training=False, drop=0.9), whole)
    assert not torch.equal(
        logits(form, training=True, drop=0.9), logits(form, training=True, drop=0.0)
    )


@pytest.mark.parametrize("drop", [0.4, torch.tensor(0.4)], ids=["number", "tensor"])
def test_robustdarts_6_on_average_drop_path_is_the_identity(drop: float | Tensor):
    """The mean of 4000 factors of 0 or 1 / 0.6 is 1 within five standard errors."""
    cell = supernet(space(["skip_connect"]), MixedOp).layers[0]
    assert isinstance(cell, CellModule)
    cell.drop = drop
    factors = cell.kept(torch.zeros(800, 1)) / (1 - drop)
    assert factors.shape == (800, 5)
    assert factors.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert float(factors.mean()) == pytest.approx(1.0, abs=5 * (0.4 / 0.6 / 4000) ** 0.5)
    assert not torch.equal(factors[:, 0], factors[:, 1])


def test_each_of_several_processes_drops_its_part_of_what_one_drops(monkeypatch):
    """Five images, three on the first process and two on the second."""
    monkeypatch.setattr(data_parallel.distributed, "size", lambda: 2)
    cell = data_parallel.across_processes(supernet(space(["skip_connect"]), MixedOp)).layers[0]
    assert isinstance(cell, CellModule)
    cell.drop = 0.5

    def kept(start: int, stop: int) -> Tensor:
        torch.manual_seed(0)
        portion = data_parallel.Portion(start, stop, 5, 1)
        monkeypatch.setattr(data_parallel.portions, "current", portion)
        return cell.kept(torch.zeros(stop - start, 1))

    assert torch.equal(torch.cat([kept(0, 3), kept(3, 5)]), kept(0, 5))
