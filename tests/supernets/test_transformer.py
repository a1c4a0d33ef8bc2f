"""Transformers in one network: the sheet's known answers (section 12), costs, refusals."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.transformers import DEPTH, HEADS, RATIO, WIDTH, TransformerSpace, gpt, vit
from strategies.relaxation.gumbel import Gumbel
from strategies.searchers.random import RandomSearch
from supernets.costs import candidate_macs, macs, parameters
from supernets.entangled import EntangledLayerNorm, Sizes
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture, Mixture, everything_active
from supernets.network import Network, final_network, supernet
from supernets.plain_transformer import Attention, Block, Mlp, attended
from supernets.super_kernel import SuperKernelOp
from supernets.transformer import (
    SuperAttention,
    SuperMlp,
    SuperTransformer,
    hidden_sizes,
    layout,
    sliced,
)

CPU = torch.device("cpu")
SIZES: dict[str, Any] = dict(
    depths=[1, 2, 3], widths=[8, 12], heads=[1, 2], head_dim=4, ratios=[0.5, 2.0], mlp="gelu"
)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def text(**changes: Any) -> Any:
    sizes = SIZES | dict(bias=False, tied=True, input_shape=(1, 1, 6), classes=5)
    return gpt(**sizes | changes)


def images(**changes: Any) -> Any:
    sizes = SIZES | dict(bias=True, patch=2, pool="class_token", input_shape=(3, 4, 6), classes=5)
    return vit(**sizes | changes)


SPACES = [
    text(),
    text(bias=True, tied=False, mlp="swiglu"),
    images(),
    images(bias=False, pool="mean", mlp="swiglu"),
]


def sizes(gates: list[float], of: list[int]) -> Sizes:
    return Sizes(torch.tensor(gates), tuple(of), tuple(range(len(of))))


def inputs(space: TransformerSpace, count: int = 2) -> Tensor:
    if space.reads_text:
        return torch.randint(space.classes, (count, *space.input_shape)).double()
    return torch.randn(count, *space.input_shape)


def equal(found: Tensor, expected: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=within)


def some(space: TransformerSpace, seed: int) -> Architecture:
    torch.manual_seed(seed)
    return RandomSearch(space).ask()


def gates_of(space: TransformerSpace, *, uniform: bool = False) -> dict[str, Tensor]:
    """Random gates of sum 1, choice -> (R, O)."""
    shapes = {name: (len(c.rows), c.width) for name, c in space.choices.items()}
    return {
        name: torch.full(shape, 1 / shape[1]) if uniform else torch.randn(shape).softmax(1)
        for name, shape in shapes.items()
    }


def everywhere(gates: dict[str, Tensor]) -> Mixture:
    groups = {
        name: GroupMixture(table, None, everything_active(torch.ones_like(table).bool()))
        for name, table in gates.items()
    }
    return Mixture(groups)


def alone(net: SuperTransformer, architecture: Architecture) -> Network:
    """The final network with the weights that it has in a supernet."""
    final = final_network(net.space, architecture)
    final.load_state_dict(sliced(net, final))
    return final


def shaken(net: nn.Module) -> nn.Module:
    """Random biases and norms, too, so that nothing is 0 or 1."""
    with torch.no_grad():
        for value in net.parameters():
            value.normal_(std=0.5)
    return net


def networks(space: TransformerSpace) -> Iterator[tuple[Architecture, dict[str, int]]]:
    """All architectures of which the blocks that a depth cuts off keep their first options."""
    choices = space.choices
    places = [(name, r) for name, choice in choices.items() for r in range(len(choice.rows))]
    ranges = [range(len(choices[name].rows[r].options)) for name, r in places]
    for options in product(*ranges):
        drawn = dict(zip(places, options, strict=True))
        yield (
            Architecture.of(
                space,
                {
                    name: {
                        row.name: [row.names[drawn[name, r]]] for r, row in enumerate(choice.rows)
                    }
                    for name, choice in choices.items()
                },
            ),
            drawn,  # type: ignore[misc]
        )


def test_entangled_10_a_norm_of_one_width_is_torchs_and_mixed_with_the_others_their_sum():
    norm, x = shaken(EntangledLayerNorm(6)), torch.randn(2, 3, 6)
    for o, e in enumerate([2, 4, 6]):
        gates = F.one_hot(torch.tensor(o), 3).double()
        expected = F.layer_norm(x[..., :e], (e,), norm.weight[:e], norm.bias[:e])
        equal(norm(x, Sizes(gates, (2, 4, 6), (o,))), expected, within=0)
        masked = norm(x, Sizes(gates, (2, 4, 6), (0, 1, 2)))
        equal(masked[..., :e], expected)
        assert not masked[..., e:].any()


def test_entangled_13_heads_by_hand():
    assert sizes([0.2, 0.3, 0.5], [2, 3, 4]).survival().tolist() == pytest.approx([1, 1, 0.8, 0.5])


@pytest.mark.parametrize("causal", [True, False])
def test_entangled_13_gated_heads_are_the_mixture_of_three_attentions(causal: bool):
    every = shaken(SuperAttention(6, 4, 3, bias=True, causal=causal))
    x, expected = torch.randn(2, 5, 6), torch.zeros(2, 5, 6)
    for gate, heads in zip([0.2, 0.3, 0.5], [2, 3, 4], strict=True):
        one = Attention(6, heads, 3, bias=True, causal=causal)
        state = {name: every.state_dict()[name] for name in one.state_dict()}
        shapes = {name: tuple(map(slice, v.shape)) for name, v in one.state_dict().items()}
        one.load_state_dict({name: v[shapes[name]] for name, v in state.items()})
        expected += gate * one(x)
    equal(every(x, sizes([0.2, 0.3, 0.5], [2, 3, 4])), expected)


def test_entangled_14_each_slice_of_qkv_is_an_attention_of_its_own():
    """On rows that are fused as 3E, the first 3e would be all of q and half of k."""
    weight = torch.randn(3, 2, 2, 4)  # q, k, v of E = 4
    x = torch.randn(1, 3, 2)
    rows = weight.reshape(12, 4)
    right = torch.cat([rows[[0, 1]], rows[[4, 5]], rows[[8, 9]]])[:, :2]
    q, k, v = (x @ right.T).split(2, -1)
    expected = (q @ k.transpose(1, 2) * 2**-0.5).softmax(-1) @ v
    equal(attended(x, weight[:, :1, :, :2], None, causal=False).flatten(2), expected)
    assert not torch.equal(rows[:6, :2], right)


@pytest.mark.parametrize("space", SPACES, ids=range(len(SPACES)))
def test_entangled_14_and_21_every_network_is_the_slice_that_one_hot_gates_run(space: Any):
    """Also of unused parts that hold garbage."""
    torch.manual_seed(0)
    net = shaken(supernet(space, MixedOp)).eval()
    x = inputs(space)
    for seed in range(6):
        architecture = some(space, seed)
        final = alone(net, architecture).eval()
        mixture = Mixture.of(architecture, space, CPU)
        equal(net(x, mixture), final(x))
        everything = everywhere({n: g.gates.double() for n, g in mixture.groups.items()})
        equal(net(x, everything), final(x), within=1e-11)


def test_entangled_15_a_nested_mlp_by_hand():
    found = sizes([0.1, 0.2, 0.3, 0.4], [1, 2, 4, 8]).survival()
    assert found.tolist() == pytest.approx([1, 0.9, 0.7, 0.7, 0.4, 0.4, 0.4, 0.4])


@pytest.mark.parametrize("gated", [True, False])
def test_entangled_15_a_nested_mlp_is_the_mixture_of_its_widths(gated: bool):
    every = shaken(SuperMlp(5, 8, bias=True, gated=gated))
    x, expected = torch.randn(2, 3, 5), torch.zeros(2, 3, 5)
    for gate, width in zip([0.1, 0.2, 0.3, 0.4], [1, 2, 4, 8], strict=True):
        one = Mlp(5, width, bias=True, gated=gated)
        one.load_state_dict(
            {
                name: every.state_dict()[name][tuple(map(slice, v.shape))]
                for name, v in one.state_dict().items()
            }
        )
        expected += gate * one(x)
    equal(every(x, sizes([0.1, 0.2, 0.3, 0.4], [1, 2, 4, 8])), expected)


def test_a_pair_of_width_and_ratio_decides_the_hidden_features():
    both = hidden_sizes(sizes([0.25, 0.75], [2, 4]), sizes([0.4, 0.6], [1, 2]))
    assert both.sizes == (2, 4, 4, 8)
    expected = [1, 1, 0.9, 0.9, 0.45, 0.45, 0.45, 0.45]
    assert both.survival().tolist() == pytest.approx(expected)
    one = hidden_sizes(Sizes(torch.ones(2), (2, 4), (0,)), Sizes(torch.ones(2), (1, 2), (1,)))
    assert one.largest == 4


def test_the_width_is_gated_where_a_norm_reads_the_stream_and_nowhere_else():
    """So what the first block reads is the exact mixture over the networks of all widths."""
    space = text(depths=[1], heads=[2], ratios=[1.0])
    net = shaken(supernet(space, MixedOp)).eval()
    x, gates = inputs(space), gates_of(space)
    read: list[Tensor] = []
    net.blocks[0].norm_a.register_forward_hook(lambda *a: read.append(a[-1]))
    net(x, everywhere(gates))
    expected = torch.zeros_like(read[0])
    for o, e in enumerate([8, 12]):
        names = {n: {r.name: [r.names[-1]] for r in c.rows} for n, c in space.choices.items()}
        names[WIDTH] = {"0-1": [f"width_{e}"]}
        final = alone(net, Architecture.of(space, names))
        y = final.embedding(x.flatten(1).long()) + final.positions
        expected[..., :e] += gates[WIDTH][0, o] * final.blocks[0].norm_a(y)
    equal(read[0], expected)


def test_entangled_16_depths_by_hand():
    assert sizes([0.2, 0.3, 0.5], [1, 2, 3]).survival().tolist() == pytest.approx([1, 0.8, 0.5])


def test_entangled_16_exits_are_increments_and_gated_branches_are_another_network():
    torch.manual_seed(0)
    layers, x = [nn.Linear(4, 4) for _ in range(3)], torch.randn(2, 4)
    gates, survival, outputs = [0.2, 0.3, 0.5], [1, 0.8, 0.5], [x]
    for layer in layers:
        outputs.append(outputs[-1] + torch.tanh(2 * layer(outputs[-1])))
    exits = sum(g * y for g, y in zip(gates, outputs[1:], strict=True))
    steps = zip(survival, outputs[1:], outputs, strict=False)
    increments = x + sum(s * (after - before) for s, after, before in steps)
    equal(exits, increments)
    branches = x
    for s, layer in zip(survival, layers, strict=True):
        branches = branches + s * torch.tanh(2 * layer(branches))
    assert (branches - exits).abs().max() > 1e-3


@pytest.mark.parametrize("space", SPACES, ids=range(len(SPACES)))
def test_entangled_16_mixed_depths_are_the_mixture_of_the_logits(space: Any):
    """The norm stands before the mixture, and what follows is linear."""
    net = shaken(supernet(space, MixedOp)).eval()
    architecture, x = some(space, 1), inputs(space)
    gates = {n: g.gates.double() for n, g in Mixture.of(architecture, space, CPU).groups.items()}
    expected = torch.zeros_like(net(x, everywhere(gates)))
    for o, gate in enumerate([0.2, 0.3, 0.5]):
        gates[DEPTH] = F.one_hot(torch.tensor([o]), 3).double()
        expected = expected + gate * net(x, everywhere(gates))
    gates[DEPTH] = torch.tensor([[0.2, 0.3, 0.5]])
    equal(net(x, everywhere(gates)), expected, within=1e-11)


def test_entangled_19_the_expected_size_of_the_shakespeare_space():
    """In the published space heads share the width, so that attention has 4 e^2 weights; ours have
    64 features each, 4 * 64 h e. All else is as published."""
    space = gpt(
        depths=[4, 5, 6], widths=[96, 192, 384], heads=[2, 4, 6], head_dim=64, ratios=[2, 3, 4],
        mlp="gelu", bias=False, tied=True, input_shape=(1, 1, 256), classes=65,
    )  # fmt: skip
    with torch.device("meta"):
        net = supernet(space, MixedOp)
        largest = final_network(space, Architecture.of(space, space.unpruned))
    assert parameters(largest) == parameters(net) == 10_745_088
    found = net.costs.parameters(gates_of(space, uniform=True)).item()
    e, squares, heads, depth = 224, (96**2 + 192**2 + 384**2) / 3, 4, 5
    published = found - depth * 4 * 64 * heads * e + depth * 4 * squares
    assert published == pytest.approx(3_299_968)
    assert published - depth * (4 + 2 * 3) * (squares - e**2) == pytest.approx(2_583_168)


def test_entangled_20_the_counts_of_autoformer():
    """Ours have no tables of relative positions: 4 of 30 rows of 64 in each block."""
    space = vit(
        depths=[12, 13, 14], widths=[192, 216, 240], heads=[3, 4], head_dim=64, ratios=[3.5, 4],
        mlp="gelu", bias=True, patch=16, pool="class_token", input_shape=(3, 224, 224),
        classes=1000,
    )  # fmt: skip
    tables = 4 * 30 * 64

    def count(depth: int, width: int, heads: list[int], ratios: list[float]) -> int:
        blocks = space.sizes[DEPTH][-1]
        more = [range(depth, blocks)] * 2
        chosen = {
            DEPTH: [f"depth_{depth}"],
            WIDTH: [f"width_{width}"],
            HEADS: [f"heads_{h}" for h in heads] + [f"heads_{3}" for _ in more[0]],
            RATIO: [f"ratio_{r:g}" for r in ratios] + [f"ratio_{4}" for _ in more[1]],
        }
        names = {n: {f"{i}-{i + 1}": [o] for i, o in enumerate(c)} for n, c in chosen.items()}
        with torch.device("meta"):
            net = final_network(space, Architecture.of(space, names))
        return parameters(net) + depth * tables

    assert count(13, 192, [4] + 12 * [3], [4] + 12 * [3.5]) == 5_867_944
    assert count(14, 240, 14 * [4], 14 * [4]) == 10_517_272
    assert count(12, 192, 12 * [3], 12 * [3.5]) == 5_366_056
    options = {name: len(values) for name, values in space.sizes.items()}
    each = options[HEADS] * options[RATIO]
    assert options[WIDTH] * sum(each**d for d in space.sizes[DEPTH]) == 1_056_964_608


@pytest.mark.parametrize("space", SPACES, ids=range(len(SPACES)))
def test_the_cost_of_one_hot_gates_is_the_count_of_the_built_network(space: Any):
    with torch.device("meta"):
        net = supernet(space, MixedOp)
    for seed in range(8):
        architecture = some(space, seed)
        with torch.device("meta"):
            final = final_network(space, architecture)
        groups = Mixture.of(architecture, space, CPU).groups
        gates = {name: group.gates.double() for name, group in groups.items()}
        assert net.expected_macs(gates).item() == macs(final)
        assert net.costs.parameters(gates).item() == parameters(final)


@pytest.mark.parametrize("make", [text, images])
def test_the_expected_cost_is_the_mean_over_all_networks(make: Any):
    space = make(depths=[1, 2])
    with torch.device("meta"):
        net = supernet(space, MixedOp)
    gates, mean = gates_of(space), torch.zeros(2)
    for architecture, drawn in networks(space):
        probability = 1.0
        for (name, r), o in drawn.items():  # type: ignore[misc]
            probability *= gates[name][r, o].item()
        one = {n: g.gates.double() for n, g in Mixture.of(architecture, space, CPU).groups.items()}
        counts = torch.stack([net.expected_macs(one), net.costs.parameters(one)])
        mean += probability * counts
    found = torch.stack([net.expected_macs(gates), net.costs.parameters(gates)])
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=0)


def test_the_costs_of_options_follow_from_the_expected_ones():
    space = text()
    with torch.device("meta"):
        net = supernet(space, MixedOp)
    table = candidate_macs(net)
    T, d, e = 6, 4, 12
    assert (table[HEADS][0, 1] - table[HEADS][0, 0]).item() == 4 * d * T * e + 2 * d * T * T
    assert (table[RATIO][2, 1] - table[RATIO][2, 0]).item() == 2 * T * e * (24 - 6)


def test_entangled_22_one_path_runs_slices_and_its_gates_get_gradients():
    space = text()
    net = shaken(supernet(space, MixedOp)).eval()
    x = inputs(space)
    alphas = {n: torch.randn(len(c.rows), c.width, requires_grad=True)
              for n, c in space.choices.items()}  # fmt: skip
    values = []
    for tau in (10.0, 0.1):
        torch.manual_seed(5)
        relaxation = Gumbel(start=tau, end=tau).train()
        groups = {}
        for name, alpha in alphas.items():
            gates, index = relaxation(alpha, torch.ones_like(alpha).bool())
            groups[name] = GroupMixture(gates, None, [[o] for o in index.tolist()])
        y = net(x, Mixture(groups))
        kept = {name: [o for (o,) in group.active] for name, group in groups.items()}
        values.append(y.detach())
        names = {n: {row.name: [row.names[o]] for row, o in zip(c.rows, kept[n], strict=True)}
                 for n, c in space.choices.items()}  # fmt: skip
        equal(y, alone(net, Architecture.of(space, names)).eval()(x))
        gradients = torch.autograd.grad(y.square().sum(), list(alphas.values()), retain_graph=True)
        for name, gradient in zip(alphas, gradients, strict=True):
            used = gradient[: space.sizes[DEPTH][kept[DEPTH][0]]]
            assert (used.abs().sum(1) > 0).all(), name
            equal(gradient.sum(1), torch.zeros(len(gradient)), within=1e-9)  # only by the softmax
    equal(*values)


def test_what_is_not_sampled_gets_no_gradient():
    space = text()
    net = shaken(supernet(space, MixedOp))
    smallest = {n: {row.name: [row.names[0]] for row in c.rows} for n, c in space.choices.items()}
    net(inputs(space), Mixture.of(Architecture.of(space, smallest), space, CPU)).sum().backward()
    assert net.blocks[1].mlp.up.weight.grad is None
    up, qkv = net.blocks[0].mlp.up.weight.grad, net.blocks[0].attention.weight.grad
    assert not up[4:].any()
    assert not up[:, 8:].any()
    assert up[:4, :8].any()
    assert not qkv[:, 1:].any()
    assert not qkv[..., 8:].any()


def test_a_decoder_sees_nothing_of_what_follows():
    space = text()
    net = shaken(final_network(space, some(space, 0))).eval()
    x = inputs(space, 1)
    changed = x.clone()
    changed[..., 4:] = (changed[..., 4:] + 1) % space.classes
    equal(net(x)[..., :4], net(changed)[..., :4], within=0)
    equal(net(x[..., :4]), net(x)[..., :4])
    assert net(x).shape == (1, 5, 6)


def test_memory_of_the_supernet_is_that_of_the_largest_network():
    for space in SPACES:
        with torch.device("meta"):
            net = supernet(space, MixedOp)
            largest = final_network(space, Architecture.of(space, space.unpruned))
        assert parameters(net) == parameters(largest)
        assert set(net.state_dict()) == set(largest.state_dict())


def test_recomputed_blocks_give_the_same_gradients():
    space = images()
    net = shaken(supernet(space, MixedOp)).train()
    mixture, x, found = everywhere(gates_of(space)), inputs(space), []
    for again in (False, True):
        net.checkpoint_cells = again
        net.zero_grad()
        net(x, mixture).square().sum().backward()
        found.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*found, strict=True):
        equal(a, b)


@pytest.mark.parametrize("mixed_op", [PartialMixedOp, SuperKernelOp])
def test_mixed_ops_of_other_spaces_are_refused(mixed_op: Any):
    with pytest.raises(
        ValueError, match=r"options of space gpt .* cannot mix; set strategy/mixed_op=full"
    ):
        supernet(text(), mixed_op)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (text, dict(widths=[12, 8]), r"widths: expected numbers that rise, found \[12, 8\]"),
        (text, dict(heads=[]), "heads: expected numbers that rise"),
        (text, dict(input_shape=(3, 8, 8)), "space gpt reads text, found images of 3x8x8"),
        (images, dict(patch=4), "patch: 4x6 images cannot be cut into squares of 4 pixels"),
        (images, dict(pool="max"), "pool: expected one of class_token, mean"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make: Any, changes: Any, message: str):
    with pytest.raises(ValueError, match=message):
        supernet(make(**changes), MixedOp)


def test_there_is_no_auxiliary_head():
    with pytest.raises(ValueError, match="auxiliary_weight: expected 0"):
        final_network(text(), some(text(), 0), auxiliary=True)


def test_a_block_of_the_final_network_has_the_layout_of_its_options():
    space = images()
    plan = layout(space, Architecture.of(space, space.unpruned))
    assert plan["blocks"] == 3 * [{"heads": 2, "hidden": 24}]
    assert (plan["width"], plan["tokens"], plan["classes"]) == (12, 7, 5)
    assert len(list(Block(plan, plan["blocks"][0], causal=False).parameters())) == 12
