import pickle

import pytest
import torch

from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture, Mixture, everything_active
from supernets.network import final_network, supernet
from supernets.skeleton import AuxiliaryHead


def even_mixture(space: Space, alive: bool = True) -> Mixture:
    groups = {}
    for name, cell in space.groups.items():
        shape = (len(cell.edges), cell.width)
        active = everything_active(torch.full(shape, alive))
        groups[name] = GroupMixture(torch.full(shape, 1 / cell.width), None, active)
    return Mixture(groups)


SHAPES = [(1, 8, 8), (3, 33, 47), (4, 16, 24), (13, 32, 32)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("toy", ["toy_darts", "toy_nasbench201"])
def test_supernet_and_final_network_take_any_image(request, toy: str, shape: tuple[int, int, int]):
    space = request.getfixturevalue(toy).resize(input_shape=shape, classes=7)
    x = torch.randn(2, *shape)
    assert supernet(space, MixedOp)(x, even_mixture(space)).shape == (2, 7)
    assert final_network(space, RandomSearch(space).ask())(x).shape == (2, 7)


@pytest.mark.parametrize("size", [64, 96])
def test_the_imagenet_stem_divides_by_eight(size: int):
    space = darts(
        layers=3, nodes=1, channels=8, candidates=["sep_conv_3x3"], input_shape=(3, size, size),
        classes=5, stem="imagenet",
    )  # fmt: skip
    net = supernet(space, MixedOp)
    assert net.stem_second(net.stem(torch.randn(2, 3, size, size))).shape[2:] == (
        size // 8,
        size // 8,
    )
    assert net(torch.randn(2, 3, size, size), even_mixture(space)).shape == (2, 5)


@pytest.mark.parametrize("toy", ["toy_darts", "toy_nasbench201"])
def test_a_cell_with_everything_dead_gives_zeros_and_finite_gradients(request, toy: str):
    space = request.getfixturevalue(toy)
    net = supernet(space, MixedOp)
    logits = net(torch.randn(2, 3, 16, 16), even_mixture(space, alive=False))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[0], logits[1])  # nothing of the image gets through


def test_one_hot_gates_are_the_discrete_network(toy_nasbench201: Space):
    """With the same weights, running only the kept candidates equals the final network."""
    architecture = RandomSearch(toy_nasbench201).ask()
    final = final_network(toy_nasbench201, architecture)
    net = supernet(toy_nasbench201, MixedOp, affine=True)
    for i, layer in enumerate(final.layers):
        if toy_nasbench201.layers[i].cell is None:
            net.layers[i].load_state_dict(layer.state_dict())
            continue
        for edge in toy_nasbench201.cells["cell"].edges:
            for name in architecture.choices["cell"].get(edge.name, ()):
                chosen = layer.edges[edge.name].ops[0]
                net.layers[i].edges[edge.name].ops[edge.names.index(name)].load_state_dict(
                    chosen.state_dict()
                )
    for part in ("stem", "head"):
        getattr(net, part).load_state_dict(getattr(final, part).state_dict())
    x = torch.randn(4, 3, 16, 16)
    mixture = Mixture.of(architecture, toy_nasbench201, torch.device("cpu"))
    torch.testing.assert_close(net(x, mixture), final(x))


def test_weights_hold_no_alphas_and_one_candidate_is_a_plain_network(toy_darts: Space):
    space = toy_darts.resize(candidates=["sep_conv_3x3"])
    net = supernet(space, MixedOp)
    assert all(p.shape != (5, 1) for p in net.parameters())
    ones = even_mixture(space)
    everything = {g: {e.name: ["sep_conv_3x3"] for e in c.edges} for g, c in space.groups.items()}
    plain = Mixture.of(Architecture.of(space, everything), space, torch.device("cpu"))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(net(x, ones), net(x, plain))


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 8), (5, 5), (3, 2), (1, 1), (16, 9)])
def test_the_auxiliary_head_takes_any_map(size: tuple[int, int]):
    head = AuxiliaryHead(16, 10, second_norm=True)
    assert head(torch.randn(3, 16, *size)).shape == (3, 10)


def test_auxiliary_logits_come_in_training_only(toy_darts: Space):
    net = final_network(toy_darts, RandomSearch(toy_darts).ask(), auxiliary=True)
    logits, auxiliary = net(torch.randn(2, 3, 16, 16))
    assert logits.shape == auxiliary.shape == (2, 10)
    assert net.eval()(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_an_operation_may_come_from_outside(toy_darts: Space):
    def plus_one(
        c_in: int, c_out: int, stride: int, *, affine: bool, search: bool
    ) -> torch.nn.Module:
        return CANDIDATES["avg_pool_3x3"](c_in, c_out, stride, affine=affine, search=search)

    space = darts(
        **{**toy_darts.settings, "candidates": ["plus_one"]}, operations={"plus_one": plus_one}
    )
    architecture = RandomSearch(space).ask()
    assert {n for e in architecture.choices.values() for names in e.values() for n in names} == {
        "plus_one"
    }
    assert final_network(space.resize(channels=4), architecture)(
        torch.randn(1, 3, 16, 16)
    ).shape == (1, 10)


def test_operations_of_an_edge_stand_in_the_order_of_their_names(toy_darts: Space):
    """As in the file, not as in the space: weights are found by their number."""
    names = ["skip_connect", "dil_conv_5x5", "avg_pool_3x3"]  # as the space has them: 3, 7, 2
    space = toy_darts.resize(candidates=list(CANDIDATES))
    kept = {"normal": {"0-2": names}, "reduce": {"0-2": names}}
    net = final_network(space, Architecture.of(space, kept))
    found = [type(op).__name__ for op in net.layers[0].edges["0-2"].ops]
    assert found == ["Pool", "Sequential", "Identity"]
    by_hand = Architecture(Architecture.of(space, kept).space, {
        name: {"0-2": ("avg_pool_3x3", "dil_conv_5x5", "none", "skip_connect")}
        for name in ("normal", "reduce")
    })  # fmt: skip
    assert [*final_network(space, by_hand).state_dict()] == [*net.state_dict()]


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_a_space_is_pickled_with_its_network(name: str, request):
    space = request.getfixturevalue(f"toy_{name}")
    assert pickle.loads(pickle.dumps(space)).settings == space.settings
