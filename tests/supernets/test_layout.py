"""No pass of ours hands a channels-last map to torch's convolutions on a CPU."""

from functools import partial

import pytest
import torch
from equal_forms import CPU, everything
from hydra.utils import instantiate
from layouts import Convolutions, taken_for_channels_last
from test_every_config import OWN, SEARCHERS, STRATEGIES, composed, still
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from archsmith.result.baseline import NETWORKS, HandMade
from archsmith.train.evaluate import evaluate, restore_statistics
from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.goldnas import CANDIDATES as GOLDNAS
from search_spaces.goldnas import goldnas
from search_spaces.hypercuboid import hypercuboid
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.nasbench201 import nasbench201
from search_spaces.programs import modular
from search_spaces.resnets import tas
from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from supernets.forms import FORMS, use_form
from supernets.layout import channels_first
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.native.build import compiler
from supernets.network import CellModule, final_network, supernet


class Strided(nn.Sequential):
    """An operation from outside, of the convolutions at fault."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, affine: bool, search: bool):
        super().__init__(nn.Conv2d(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out, affine=affine))


class Own(MixedOp):
    """A mixed op that no form knows: its edges run alone."""


def space_of(family: str, channels: int = 4, **more: object) -> Space:
    """`outside` is the DARTS space with an operation from outside."""
    make, names = {
        "goldnas": (goldnas, list(GOLDNAS)),
        "nasbench201": (nasbench201, list(NASBENCH201)),
        "outside": (darts, ["skip_connect", "max_pool_3x3", "sep_conv_3x3", "strided"]),
    }.get(family, (darts, list(CANDIDATES)))
    operations = {"strided": Strided} if family == "outside" else None
    settings = dict(
        layers=5 if family == "nasbench201" else 3, nodes=2, channels=channels, candidates=names,
        input_shape=(3, 8, 8), classes=3, operations=operations,
    )  # fmt: skip
    return make(**settings | more)


def batch() -> tuple[Tensor, Tensor]:
    """Images as they come out of a data set of (H, W, C) images, and labels."""
    return torch.randn(4, 8, 8, 3).permute(0, 3, 1, 2), torch.arange(4) % 3


def mixture_of(space: Space) -> Mixture:
    def part(cell) -> GroupMixture:
        gates = torch.rand(len(cell.edges), cell.width, requires_grad=True)
        return GroupMixture(gates, None, everything(cell))

    return Mixture({name: part(cell) for name, cell in space.groups.items()})


def assert_channels_first(found: Convolutions) -> None:
    assert found.seen
    assert found.last == set()


@pytest.fixture(
    params=[pytest.param(f, marks=[] if f == "native" else pytest.mark.slow) for f in FORMS]
)
def form(request) -> str:
    if request.param == "native" and compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    return request.param


def step(name: str, form: str, space: Space, *overrides: str) -> Convolutions:
    """A step of a strategy, its statistics restored, and evaluated."""
    config = composed(*still(name), *overrides).strategy
    strategy = instantiate(config, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).train()
    use_form(net, form, CPU)
    strategy.setup(net, CPU)
    strategy.epoch_start(0, 2)
    with Convolutions() as found:
        strategy.step(net, batch(), batch(), progress=0.5, move_alphas=True)
        restore_statistics(net, [batch()], strategy.mixture(noise=False))
        evaluate(net, [batch()], strategy.mixture(noise=False))
    return found


def a_pass(space: Space, mixed_op, form: str, *, checkpointed: bool = False) -> Convolutions:
    net, mixture = supernet(space, mixed_op).train(), mixture_of(space)
    net.checkpoint_cells = checkpointed
    use_form(net, form, CPU)
    with Convolutions() as found:
        net(batch()[0].requires_grad_(), mixture).sum().backward()
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n == "pcdarts" else pytest.mark.exhaustive)
        for n in STRATEGIES
        if n not in SEARCHERS
    ],
)
def test_a_step_of_each_strategy(name: str, form: str):
    space = OWN.get(name, space_of("goldnas" if name == "goldnas" else "outside"))
    assert_channels_first(step(name, form, space))


@pytest.mark.slow
@pytest.mark.parametrize("hessian", ["exact", "finite_difference"])
def test_a_step_of_second_order(hessian: str, form: str):
    space = space_of("darts", candidates=["skip_connect", "sep_conv_3x3", "dil_conv_5x5"])
    override = f"strategy.update.hessian={hessian}"
    assert_channels_first(step("darts_second_order", form, space, override))


@pytest.mark.parametrize(
    ("family", "channels", "more"),
    [
        ("darts", 1, {}),
        ("darts", 3, {"stem": "imagenet"}),  # the last cells have maps of 1x1
        ("goldnas", 2, {}),
        ("nasbench201", 5, {}),
        ("outside", 3, {}),
    ],
)
def test_a_pass_of_each_space(family: str, channels: int, more: dict, form: str):
    assert_channels_first(a_pass(space_of(family, channels, **more), MixedOp, form))


@pytest.mark.parametrize("checkpointed", [True, False])
@pytest.mark.parametrize("mixed_op", [MixedOp, Own])
def test_a_pass_of_edges_alone_and_of_cells_computed_twice(mixed_op, checkpointed: bool, form: str):
    assert_channels_first(a_pass(space_of("outside"), mixed_op, form, checkpointed=checkpointed))


def test_a_step_of_retraining_with_an_auxiliary_head():
    space = space_of("darts", 3)
    chosen = {group: {"0-2": ("sep_conv_3x3",), "1-3": ("skip_connect",)} for group in space.groups}
    net = final_network(space, Architecture.of(space, chosen), auxiliary=True).train()
    net.set_drop_path(0.2)
    with Convolutions() as found:
        logits, auxiliary = net(batch()[0])
        (logits.sum() + auxiliary.sum()).backward()
        restore_statistics(net, [batch()])
        evaluate(net, [batch()])
    assert_channels_first(found)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_step_of_a_baseline(network: str):
    net = HandMade(network, space_of("darts"), 0.1).train()
    with Convolutions() as found:
        net(batch()[0]).sum().backward()
    assert_channels_first(found)


@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (2, 3, 1, 5), (1,) * 4]
)
def test_channels_first_is_what_torch_takes_it_for(shape: tuple[int, ...]):
    x = torch.randn(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2).requires_grad_()
    y = channels_first(x)
    assert y.stride() == torch.empty(shape).stride()
    assert torch.equal(x, y)
    assert not taken_for_channels_last(y)
    (gradient,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    torch.testing.assert_close(second, 6 * x)
    assert channels_first(y) is y or min(shape[1], shape[2] * shape[3]) == 1


def test_the_watch_sees_channels_last():
    weight, x = torch.randn(2, 3, 1, 1, requires_grad=True), batch()[0]
    with Convolutions() as found:
        F.conv2d(x, weight).sum().backward()
    assert (found.seen, len(found.last)) == (2, 2)


class ChannelsFirst(TorchDispatchMode):
    """Collects the maps that convolutions get in another layout than channels last.

    What comes out of one is laid out like its input, as cuDNN does it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.found = 0, set[str]()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        y = op(*args, **kwargs or {})
        if op is torch.ops.aten.convolution.default:
            self.seen += 1
            if taken_for_channels_last(args[0]):
                return y.contiguous(memory_format=torch.channels_last)
            self.found.add(f"{tuple(args[0].shape)} {args[0].stride()}")
        return y


def whatever_the_device(cell: CellModule, inputs, mixture) -> Tensor:
    return torch.cat(list((cell.form or cell).states(inputs, mixture)), 1)


FAMILIES = ["nasbench201", *(pytest.param(f, marks=pytest.mark.slow) for f in ("darts", "goldnas"))]


@pytest.mark.slow
@pytest.mark.parametrize("mixed_op", [MixedOp, partial(PartialMixedOp, k=2)])
@pytest.mark.parametrize("family", [*FAMILIES, "outside"])
@pytest.mark.parametrize("form", ["reference", "fused"])
def test_c9_all_convolutions_get_channels_last_where_that_is_asked_for(
    family: str, mixed_op, form: str, monkeypatch
):
    """On tensors without data, which follow the layouts that a GPU would give."""
    monkeypatch.setattr(CellModule, "forward", whatever_the_device)
    space = space_of(family, 8, **({"nodes": 1} if family == "darts" else {}))  # all candidates
    with torch.device("meta"):
        net, mixture = supernet(space, mixed_op).train(), mixture_of(space)
        use_form(net, form, torch.device("meta"), channels_last=True)
        with ChannelsFirst() as watch:
            net(torch.empty(4, 3, 8, 8), mixture)
    assert watch.seen
    assert watch.found == set()


def test_c9_a_retrained_stack_of_cells_gets_channels_last(monkeypatch):
    """With its auxiliary head, and drop-path."""
    monkeypatch.setattr(CellModule, "forward", whatever_the_device)
    space = space_of("darts", 8)
    chosen = {group: {"0-2": ("sep_conv_3x3",), "1-3": ("skip_connect",)} for group in space.groups}
    with torch.device("meta"):
        net = final_network(space, Architecture.of(space, chosen), auxiliary=True).train()
        use_form(net, "auto", torch.device("meta"), channels_last=True)
        net.set_drop_path(0.2)
        with ChannelsFirst() as watch:
            net(torch.empty(4, 3, 8, 8))
    assert watch.seen
    assert watch.found == set()


SHAPES = dict(input_shape=(3, 8, 8), classes=3)
OTHERS = {
    "tas": tas(depth=8, channels=8, widths=[0.5, 1], **SHAPES),
    "hypercuboid": hypercuboid(
        layers=3, channels=4, widths=2, head_channels=8, candidates=["sep_conv_3x3"], **SHAPES
    ),
    "modular": modular(
        layers=3, channels=4, widths=[1, 2], kernels=[3], rates=[0.1], units=[1], **SHAPES
    ),
}


@pytest.mark.parametrize(
    ("family", "final"),
    [(f, final) for f in OTHERS for final in (True, False) if final or OTHERS[f].has_supernet],
)
def test_c9_networks_that_are_no_stacks_of_cells_get_channels_last(family: str, final: bool):
    space = OTHERS[family]
    found, mixture = RandomSearch(space).ask(), None
    with torch.device("meta"):
        net = (final_network(space, found) if final else supernet(space, MixedOp)).train()
        if not final:
            groups = {}
            for name, choice in space.choices.items():
                gates = torch.rand(len(choice.rows), choice.width)
                active = [range(len(row.options)) for row in choice.rows]
                groups[name] = GroupMixture(gates, None, active)
            mixture = Mixture(groups)
        use_form(net, "fused", torch.device("meta"), channels_last=True)
        with ChannelsFirst() as watch:
            net(torch.empty(4, 3, 8, 8), mixture)
    assert watch.seen
    assert watch.found == set()
