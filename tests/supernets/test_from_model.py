"""A trained network as a space of widths: groups, cuts, masks. Numbers: the sheet of entangled
spaces, sections 14 to 19."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.from_model import WIDTH, FromModelSpace, from_model
from strategies.searchers.random import RandomSearch
from supernets import from_model as networks
from supernets.channel_cut import cut, kept_of, narrowed, order, scores, widths_of
from supernets.channel_groups import FIXED, ChannelGroups, channel_groups
from supernets.costs import candidate_macs, macs, parameters
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.narrowing import by_drops, by_importance, fastnas, uniform
from supernets.network import final_network, started, supernet
from supernets.trace import shapes_of, trace
from supernets.traced import Layout, TracedNetwork

CPU = torch.device("cpu")
SMALL = ["residual", "joined", "normed"]


def space(name: str = "residual", **changes) -> FromModelSpace:
    sizes = {"weights": None, "divisor": 1, "most": 8, "importance": "l2", "classes": 3}
    shape = {"input_shape": (1, 6, 7)}
    model = {"model": f"small_networks:{name}"}
    return from_model(**model | sizes | shape | changes)


def of_net(net: nn.Module, shape: tuple[int, int, int]) -> tuple[Layout, ChannelGroups]:
    layout = trace(net)
    return layout, channel_groups(layout, shapes_of(layout, shape))


def run(layout: Layout, state: dict[str, Tensor], x: Tensor) -> Tensor:
    with torch.device("meta"):
        net = TracedNetwork(layout).to(x.dtype)
    net.net.load_state_dict(state, assign=True)
    return net.eval()(x)


def doubled(net: nn.Module) -> dict[str, Tensor]:
    return {n: t.double() if t.is_floating_point() else t for n, t in net.state_dict().items()}


def offers(found: ChannelGroups) -> list[int]:
    return [len(group.units) for group in found.groups if group.frozen is None]


def some(given: FromModelSpace, seed: int = 0) -> Architecture:
    torch.manual_seed(seed)
    return RandomSearch(given).ask()


def gates(architecture: Architecture, given: FromModelSpace) -> dict[str, Tensor]:
    return {n: g.gates.double() for n, g in Mixture.of(architecture, given, CPU).groups.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("residual", [8, 8, 4, 8, 4]),
        ("joined", [4, 6, 4, 4]),  # the grouped convolution ties 8 and 12 channels to 4 units
        ("normed", [8, 16]),
    ],
)
def test_from_model_1_groups_of_small_networks(name: str, expected: list[int]):
    _, found = of_net(networks.made(f"small_networks:{name}", 3), (1, 6, 7))
    assert offers(found) == expected
    (logits,) = (group for group in found.groups if group.frozen)
    assert logits.frozen == "they are the logits"
    assert logits.name == "fc"


@pytest.mark.parametrize(
    ("name", "count", "parameters_", "macs_"),
    [
        ("resnet18", 12, (11_689_512, 3_055_880), (1_814_073_344, 483_149_824)),
        ("mobilenet_v3_small", 27, (2_542_856, 911_224), (56_510_400, 17_603_488)),
    ],
)
def test_from_model_1_groups_and_counts_of_torchvision(name, count, parameters_, macs_):
    sizes = {"weights": None, "divisor": 1, "most": 2, "importance": "l2"}
    given = from_model(model=name, **sizes, input_shape=(3, 224, 224), classes=1000)
    assert len(given.widths) == count
    builder = networks.FromModel()
    for option, n, m in zip((1, 0), parameters_, macs_, strict=True):
        assert builder.counts(given, {WIDTH: [option] * count}) == {"params": n, "macs": m}
    halved = {WIDTH: {row.name: [row.names[0]] for row in given.width.rows}}
    with torch.device("meta"):
        net = final_network(given, Architecture.of(given, halved))
    assert (parameters(net), macs(net)) == (parameters_[1], macs_[1])


@pytest.mark.parametrize("name", SMALL)
def test_from_model_2_any_order_of_a_group_leaves_the_logits(name: str):
    net = networks.made(f"small_networks:{name}", 3).eval()
    layout, found = of_net(net, (1, 6, 7))
    state, x = doubled(net), torch.randn(2, 1, 6, 7).double()
    expected = run(layout, state, x)
    for g, group in enumerate(found.groups):
        if group.frozen is None:
            kept = [list(range(len(one.units))) for one in found.groups]
            kept[g] = torch.randperm(len(group.units)).tolist()
            torch.testing.assert_close(run(layout, cut(state, found, kept), x), expected)
    torch.testing.assert_close(expected, copy.deepcopy(net).double()(x))


def zeroed(state: dict[str, Tensor], found: ChannelGroups, g: int, kept: list[int]) -> None:
    """Sets the input columns of what reads a group to 0, but for the units that are kept."""
    gone = set(found.groups[g].units) - {found.groups[g].units.start + unit for unit in kept}
    for axis in found.axes:
        columns = [p for p, unit in enumerate(axis.marks) if unit in gone]
        reads = axis.dim == 1 and axis.tensor.endswith(".weight")
        if reads and columns:
            state[axis.tensor] = state[axis.tensor].clone()
            state[axis.tensor][:, columns] = 0


@pytest.mark.parametrize("name", ["residual", "joined"])
def test_from_model_3_a_cut_equals_zeroed_columns(name: str):
    net = networks.made(f"small_networks:{name}", 3).eval()
    layout, found = of_net(net, (1, 6, 7))
    x = torch.randn(2, 1, 6, 7).double()
    for g, group in enumerate(found.groups):
        if group.frozen is not None:
            continue
        state, widths = doubled(net), [len(one.units) for one in found.groups]
        kept = [list(range(n)) for n in widths]
        widths[g], kept[g] = len(kept[g]) // 2, kept[g][1::2]
        smaller = run(narrowed(layout, found, widths), cut(state, found, kept), x)
        zeroed(state, found, g, kept[g])
        torch.testing.assert_close(smaller, run(layout, state, x), rtol=1e-12, atol=1e-12)


def test_from_model_3_by_hand_a_zeroed_filter_is_not_a_cut():
    """gamma 1, beta .5, mean .2, variance 1 (eps 0): the channel comes back as .3."""
    norm = nn.BatchNorm2d(1, eps=0.0).double().eval()
    norm.bias.data.fill_(0.5)
    norm.running_mean.fill_(0.2)
    assert norm(torch.zeros(1, 1, 1, 1).double()).item() == pytest.approx(0.3, abs=1e-12)


def test_from_model_4_a_norm_over_channels_is_that_of_the_cut():
    """Its columns zeroed it differs; the supernet's own norm equals the cut."""
    net = networks.made("small_networks:normed", 3).eval()
    layout, found = of_net(net, (1, 6, 7))
    x, state, widths = torch.randn(2, 1, 6, 7).double(), doubled(net), [4, 16, 3]
    kept = [[0, 2, 5, 6], list(range(16)), list(range(3))]
    smaller = run(narrowed(layout, found, widths), cut(state, found, kept), x)
    zeroed(state, found, 0, kept[0])
    assert (smaller - run(layout, state, x)).abs().max() > 1e-3
    test_one_hot_gates_are_the_network_that_is_cut("normed")


@pytest.mark.parametrize("name", SMALL)
def test_one_hot_gates_are_the_network_that_is_cut(name: str):
    given = space(name)
    net, x = supernet(given, MixedOp).eval().double(), torch.randn(2, 1, 6, 7).double()
    for seed in range(5):
        architecture = some(given, seed)
        smaller = started(given, architecture).eval().double()
        expected = smaller(x)
        found = net(x, Mixture.of(architecture, given, CPU))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_gates_are_the_mixture_of_cut_networks_where_one_layer_reads_a_group():
    """conv-BN-ReLU-linear: the mask on the activation is the mixture of both networks' logits."""
    given = space("joined")
    net, x = supernet(given, MixedOp).eval().double(), torch.randn(2, 1, 6, 7).double()
    full = given.unpruned[WIDTH]
    last = given.width.rows[-1]  # read by the linear layer alone, behind a max-pool
    assert net.found.groups[net.open[-1]].name.startswith("last")
    mixture = Mixture.of(Architecture.of(given, {WIDTH: full}), given, CPU)
    table = mixture.groups[WIDTH].gates.double()
    table[-1, :4] = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    table[-1, 3] = 1 - table[-1, :3].sum()
    table[-1, 4:] = 0.0
    active = [*mixture.groups[WIDTH].active[:-1], [0, 1, 2, 3]]
    mixed = net(x, Mixture({WIDTH: GroupMixture(table, None, active)}))
    single = [
        started(given, Architecture.of(given, {WIDTH: {**full, last.name: [name]}}))
        .eval()
        .double()(x)
        for name in last.names
    ]
    expected = sum(gate * y for gate, y in zip(table[-1], single, strict=False))
    torch.testing.assert_close(mixed, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_from_model_5_full_width_is_the_original_bit_for_bit(name: str):
    given, x = space(name), torch.randn(2, 1, 6, 7)
    full = started(given, Architecture.of(given, given.unpruned)).eval()
    assert torch.equal(full(x), networks.made(f"small_networks:{name}", 3).eval()(x))


def test_from_model_5_the_smallest_is_a_network_of_those_widths():
    given = space("residual", divisor=4, most=2)
    assert given.widths == ((4, 8), (4, 8), (4, 8))
    least = Architecture.of(given, {WIDTH: {r.name: [r.names[0]] for r in given.width.rows}})
    net = final_network(given, least)
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == [
        4, 4, 4, 4, 4, 4, 4, 4, 4
    ]  # fmt: skip
    assert net.net.get_submodule("fc").in_features == 4


def test_from_model_6_concatenated_channels_are_cut_by_their_part():
    net = networks.made("small_networks:joined", 3).eval()
    _, found = of_net(net, (1, 6, 7))
    kept = [list(range(len(group.units))) for group in found.groups]
    kept[0] = [0, 1]
    columns = cut(
        {**net.state_dict(), "c.0.weight": torch.arange(10).view(1, 10, 1, 1)}, found, kept
    )
    assert columns["c.0.weight"].flatten().tolist() == [0, 1, 4, 5, 6, 7, 8, 9]


def test_from_model_7_a_flattened_channel_owns_its_pixels():
    net = networks.made("small_networks:joined", 3).eval()
    _, found = of_net(net, (1, 6, 7))
    kept = [list(range(len(group.units))) for group in found.groups]
    kept[3] = [0, 1]
    columns = cut({**net.state_dict(), "fc.weight": torch.arange(16).view(1, 16)}, found, kept)
    assert columns["fc.weight"].flatten().tolist() == list(range(8))


@pytest.mark.parametrize("kind", ["l1", "l2", "gamma"])
def test_from_model_8_planted_dead_channels_are_last(kind: str):
    """Every other unit of each group is set to 0 in all its tensors."""
    net = networks.made("small_networks:residual", 3).eval()
    layout, found = of_net(net, (1, 6, 7))
    state, x = doubled(net), torch.randn(2, 1, 6, 7).double()
    groups = [g for g, one in enumerate(found.groups) if one.frozen is None]
    dead = {
        found.groups[g].units[u] for g in groups for u in range(1, len(found.groups[g].units), 2)
    }
    for axis in found.axes:
        index = torch.tensor([p for p, unit in enumerate(axis.marks) if unit in dead])
        if len(index) and "running_var" not in axis.tensor:
            state[axis.tensor] = state[axis.tensor].index_fill(axis.dim, index, 0.0)
    ordered, widths = order(state, found, kind), [len(one.units) for one in found.groups]
    for g in groups:
        assert [found.groups[g].units[u] in dead for u in ordered[g]] == sorted(
            found.groups[g].units[u] in dead for u in ordered[g]
        )
        widths[g] -= widths[g] // 2
    smaller = cut(state, found, kept_of(ordered, widths))
    torch.testing.assert_close(
        run(narrowed(layout, found, widths), smaller, x),
        run(layout, state, x),
        rtol=1e-12,
        atol=1e-12,
    )


def test_scores_by_hand():
    """Two filters with norms 1 and 3, read by columns with norms 2 and 2: 1/2 + 1, 3/2 + 1."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1))
    _, found = of_net(net, (1, 1, 1))
    state = net.state_dict()
    state["0.weight"].copy_(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
    state["1.weight"].copy_(torch.tensor([2.0, 2.0]).view(1, 2, 1, 1))
    assert scores(state, found, "l2")[:2].tolist() == [1.5, 2.5]
    assert order(state, found, "l2")[0] == [1, 0]


def test_from_model_9_fastnas_by_hand():
    """Widths (4, 2, 1) have drops (0, .1, .5) and (0, .2, .3): here in rising order."""
    drops = [[0.5, 0.1, 0.0], [0.3, 0.2, 0.0]]
    assert by_drops(drops, 0.25) == [1, 1]
    assert fastnas(drops, lambda options: sum((1, 2, 4)[o] for o in options) <= 4) == [1, 1]
    assert by_drops([[0.1, 0.4, 0.0]], 0.2) == [2]  # a smaller one cannot cost less
    with pytest.raises(ValueError, match="not even the smallest"):
        fastnas(drops, lambda options: False)


def test_uniform_and_importance_by_hand():
    widths = [[2, 4, 8], [1, 2, 4]]
    assert uniform(widths, lambda o: widths[0][o[0]] + widths[1][o[1]] <= 7) == [1, 1]
    scores_ = [[8.0, 7, 6, 5, 4, 0, 0, 0], [3.0, 2, 1, 0]]
    at = by_importance(widths, scores_, lambda o: widths[0][o[0]] + widths[1][o[1]] <= 10)
    assert at == [2, 1]  # eight of the first, whose scores are larger, before two of the second


def test_expected_macs_are_the_mean_over_all_networks():
    given = space("residual", most=2)
    table = torch.rand(len(given.widths), 2, generator=torch.Generator().manual_seed(0)).double()
    table /= table.sum(1, keepdim=True)
    net, builder, mean = supernet(given, MixedOp), networks.FromModel(), 0.0
    for options in itertools.product(range(2), repeat=len(given.widths)):
        chance = torch.stack([row[o] for row, o in zip(table, options, strict=True)]).prod()
        mean += float(chance) * builder.counts(given, {WIDTH: list(options)})["macs"]
    assert float(net.expected_macs({WIDTH: table})) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_costs_are_those_of_the_network(name: str):
    given, builder = space(name), networks.FromModel()
    net = supernet(given, MixedOp)
    for seed in range(4):
        architecture = some(given, seed)
        smaller = final_network(given, architecture)
        options = [o for (o,) in architecture.kept(given)[WIDTH]]
        counted = builder.counts(given, {WIDTH: options})
        assert counted == {"params": parameters(smaller), "macs": macs(smaller)}
        assert round(float(net.expected_macs(gates(architecture, given)))) == macs(smaller)
    assert candidate_macs(net)[WIDTH].shape == (len(given.widths), given.width.width)


def test_a_reshape_of_channels_freezes_them_with_a_reason():
    _, found = of_net(networks.made("small_networks:shuffled", 3), (1, 6, 7))
    whys = {group.name: group.frozen for group in found.groups}
    assert whys["a.0"] == "'view' (view) reads them"
    assert whys["b.0"] is None


def test_what_mixes_channels_is_read_once_and_the_images_never():
    _, found = of_net(networks.made("small_networks:joined", 3), (1, 6, 7))
    assert [read.step for read in found.reads if set(read.marks) != {FIXED}] == [
        "c_0", "last_0", "fc"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("units", "channels", "expected"),
    [
        (64, 1, [8, 16, 24, 32, 40, 48, 56, 64]),
        (512, 1, list(range(64, 513, 64))),
        (40, 1, [8, 16, 24, 32, 40]),
        (10, 1, [8, 10]),
        (4, 1, [4]),
        (32, 4, [4, 8, 12, 16, 20, 24, 28, 32]),
    ],
)
def test_options_are_multiples_of_the_divisor(units: int, channels: int, expected: list[int]):
    assert widths_of(units, channels, 8, 8) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "unsteady"}, "model: torch.fx cannot trace Unsteady"),
        ({"classes": 4, "name": "joined"}, r"returns \(2, 3\) for two images, expected \(2, 4\)"),
        ({"name": "nothing"}, "model: 'small_networks:nothing' cannot be imported"),
        ({"input_shape": (3, 6, 7)}, "does not take images of"),
        ({"divisor": 64}, "no channels of small_networks:residual can be cut"),
        ({"model": "resnet1"}, "torchvision has no 'resnet1'"),
        ({"model": "swin_t", "input_shape": (3, 32, 32)}, "is no function of torch"),
    ],
)
def test_what_cannot_be_a_space_is_said(changes: dict, message: str):
    name = changes.pop("name", "residual")
    with pytest.raises(ValueError, match=message):
        space(name, **changes)


def test_weights_of_another_network_and_missing_files_are_refused(tmp_path):
    torch.save(networks.made("small_networks:joined", 3).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"weights: .*other.pt holds nothing for 'stem.0.weight'"):
        supernet(space(weights=str(tmp_path / "other.pt")), MixedOp)
    with pytest.raises(ValueError, match="weights: no file"), torch.device("meta"):
        supernet(space(weights=str(tmp_path / "no.pt")), MixedOp)


def test_a_file_does_not_decide_which_code_runs():
    given = space("residual")
    assert given.resize(divisor=2).settings["divisor"] == 2
    with pytest.raises(ValueError, match="made by the code of 'os:getcwd'"):
        given.resize(model="os:getcwd")


def test_a_mixed_op_that_would_be_ignored_is_refused():
    from functools import partial

    with pytest.raises(ValueError, match="cannot mix; set strategy"):
        supernet(space(), partial(PartialMixedOp, k=4))


def test_batch_norms_of_a_supernet_keep_their_statistics():
    given = space("residual")
    net, before = supernet(given, MixedOp).train(), {}
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net(torch.randn(4, 1, 6, 7), Mixture.of(some(given), given, CPU)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
