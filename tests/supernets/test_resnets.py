"""Networks of the space tas. Sources of numbers: the sheet of TAS; counts of the public code."""

import itertools
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from archsmith.result.export.standalone import standalone
from archsmith.result.weights import save_weights
from search_spaces.architecture import Architecture
from search_spaces.resnets import ResNetSpace, tas
from search_spaces.slices import added, resampled
from strategies.searchers.random import RandomSearch
from supernets.costs import candidate_macs, check_shapes, macs, parameters
from supernets.final_costs import total
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.network import final_network, supernet
from supernets.one_path import OnePathOp
from supernets.resnets import expected_macs

CPU = torch.device("cpu")


def space(**changes) -> ResNetSpace:
    sizes = dict(depth=14, channels=4, widths=[0.5, 1], input_shape=(3, 7, 8), classes=3)
    return tas(**sizes | changes)


def some(space: ResNetSpace, seed: int = 0) -> Architecture:
    torch.manual_seed(seed)
    return RandomSearch(space).ask()


def one_hot(architecture: Architecture, space: ResNetSpace) -> dict[str, torch.Tensor]:
    return {n: g.gates.double() for n, g in Mixture.of(architecture, space, CPU).groups.items()}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2, 3, 4, 5], [1.5, 3, 4.5]),
        ([1, 2, 3], [1, 1.5, 2, 2.5, 3]),
        ([1, 2], [1, 1, 2, 2]),
        ([1, 2], [1, 2]),
    ],
)
def test_tas_1_channel_wise_interpolation(given: list[float], expected: list[float]):
    x = torch.tensor(given, dtype=torch.float)[None, :, None, None].expand(2, -1, 3, 2)
    x = x.clone().requires_grad_()
    y = resampled(x, len(expected))
    assert y.shape == (2, len(expected), 3, 2)
    assert y[1, :, 2, 0].tolist() == expected
    for t in range(len(expected)):
        (gradient,) = torch.autograd.grad(y[0, t, 0, 0], x, retain_graph=True)
        assert gradient.sum().item() == pytest.approx(1.0)


def test_a_sum_of_different_widths_leaves_the_last_channels_of_the_wider_one():
    x, y = torch.ones(1, 2, 1, 1), torch.full((1, 3, 1, 1), 2.0)
    assert added(x, y).flatten().tolist() == added(y, x).flatten().tolist() == [3.0, 3.0, 2.0]


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "expected"), [(20, 40.81), (32, 69.12), (56, 125.75)])
def test_tas_unpruned_networks_have_the_known_costs(depth: int, expected: float):
    full = tas(depth=depth, channels=16, widths=[1], input_shape=(3, 32, 32), classes=10)
    with torch.device("meta"):
        net = final_network(full, Architecture.of(full, full.unpruned))
    assert macs(net) / 1e6 == pytest.approx(expected, abs=0.005)


@pytest.mark.slow
def test_tas_3_the_cost_of_one_hot_gates_is_the_count_of_the_built_network():
    toy = space(depth=26, widths=[0.3, 0.6, 1])
    for seed in range(8):
        architecture = some(toy, seed)
        with torch.device("meta"):
            net = final_network(toy, architecture)
        assert expected_macs(toy, one_hot(architecture, toy)).item() == macs(net)


def test_tas_3_the_expected_cost_is_the_mean_over_all_networks():
    """Also of the sums of different widths, and of cut stages. Depth 8 has one exit per stage,
    depth 14 two: the rows that vary are the first three convolutions' and two depths."""
    toy = space()
    torch.manual_seed(0)
    gates = {n: torch.zeros(len(c.rows), c.width) for n, c in toy.choices.items()}
    for table in gates.values():
        table[:, -1] = 1.0
    gates["width"][[0, 1, 2, 4]] = torch.rand(4, 2).softmax(1)
    gates["depth"][:2] = torch.rand(2, 2).softmax(1)
    mean = 0.0
    for options in itertools.product(range(2), repeat=6):
        drawn = {n: torch.nn.functional.one_hot(t.argmax(1), 2).double() for n, t in gates.items()}
        probability = 1.0
        rows = [("width", r) for r in (0, 1, 2, 4)] + [("depth", r) for r in (0, 1)]
        for (name, r), o in zip(rows, options, strict=True):
            drawn[name][r] = torch.eye(2)[o]
            probability *= gates[name][r, o].item()
        mean += probability * expected_macs(toy, drawn).item()
    assert expected_macs(toy, gates).item() == pytest.approx(mean, rel=1e-5)


def test_tas_3_widths_that_are_tied_have_another_mean():
    """The mean of a product is not that of its factors where these depend on each other."""
    toy = space(depth=8)
    gates = one_hot(Architecture.of(toy, toy.unpruned), toy)
    gates["width"][[1, 2]] = 0.5
    tied = 0.0
    for o in range(2):
        drawn = {name: table.clone() for name, table in gates.items()}
        drawn["width"][[1, 2]] = torch.eye(2, dtype=torch.double)[o]
        tied += 0.5 * expected_macs(toy, drawn).item()
    assert tied > expected_macs(toy, gates).item() + 100


def test_tas_3_the_toy_of_depths():
    """A stage of three blocks whose exits have the probabilities .2, .3, .5: its blocks run with
    1, .8 and .5."""
    toy = space(depth=20, widths=[1], input_shape=(3, 8, 8))
    gates = one_hot(Architecture.of(toy, toy.unpruned), toy)
    full = expected_macs(toy, gates).item()
    gates["depth"][0] = torch.tensor([0.2, 0.3, 0.5])
    block = 2 * 9 * 4 * 4 * 64
    assert expected_macs(toy, gates).item() == pytest.approx(full - (0.2 + 0.5) * block)


def test_the_costs_of_options_are_those_beside_full_ones():
    toy = space()
    tables = candidate_macs(supernet(toy, MixedOp))
    full = Architecture.of(toy, toy.unpruned)
    net = macs(final_network(toy, full))
    thin = {**toy.unpruned, "width": {**toy.unpruned["width"], "1-2": ["width_0.5"]}}
    less = macs(final_network(toy, Architecture.of(toy, thin)))
    assert tables["width"][1, 1] - tables["width"][1, 0] == net - less
    assert total(full, toy, tables) > net  # they do not add up


@pytest.mark.parametrize("mixed_op", [MixedOp, OnePathOp])
def test_a_supernet_computes_only_what_runs(mixed_op):
    toy, x = space(), torch.randn(2, 3, 7, 8)
    net = supernet(toy, mixed_op).train()
    mixture = Mixture.of(some(toy), toy, CPU)
    loss = net(x, mixture).square().sum()
    loss.backward()
    norms = {n for n, p in net.named_parameters() if "norm" in n and p.grad is not None}
    for s, stage in enumerate(net.stages):
        (exit_,) = mixture.groups["depth"].active[s]
        ran = {int(n.split(".")[3]) for n in norms if n.startswith(f"stages.{s}.blocks")}
        assert ran == set(range(stage.depths[exit_]))
    (first,) = mixture.groups["width"].active[0]
    assert {n for n in norms if n.startswith("stem")} == {
        f"stem.mixed.ops.{first}.norm.{kind}" for kind in ("weight", "bias")
    }


def test_the_full_supernet_is_the_full_network():
    """With the same weights, where the only batch norms that run are those of the full widths."""
    toy, x = space(depth=20), torch.randn(2, 3, 7, 8)
    full = Architecture.of(toy, toy.unpruned)
    net, final = supernet(toy, MixedOp).eval(), final_network(toy, full).eval()
    last = {f".ops.{len(row.names) - 1}." for row in toy.width.rows}
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        mine = [
            module
            for name, module in net.named_modules()
            if type(module) is kind and (".ops." not in name or any(o in name for o in last))
        ]
        others = [module for module in final.modules() if type(module) is kind]
        for module, other in zip(mine, others, strict=True):
            other.load_state_dict(module.state_dict())
    torch.testing.assert_close(net(x, Mixture.of(full, toy, CPU)), final(x))


def test_gates_and_factors_weigh_the_outputs():
    toy, x = space(depth=8), torch.randn(2, 3, 7, 8)
    net = supernet(toy, MixedOp).train()
    mixture = Mixture.of(some(toy), toy, CPU)
    gates = mixture.groups["width"].gates.requires_grad_()
    factors = torch.ones(len(gates), requires_grad=True)
    groups = {**mixture.groups, "width": GroupMixture(gates, factors, [[0, 1]] * len(gates))}
    net(x, Mixture(groups)).square().sum().backward()
    assert (gates.grad != 0).all()
    assert (factors.grad != 0).all()


def test_checkpointed_stages_give_the_same():
    toy, x = space(), torch.randn(2, 3, 7, 8)
    net = supernet(toy, MixedOp).train()
    groups = {
        name: GroupMixture(torch.full((len(c.rows), 2), 0.5), None, [[0, 1]] * len(c.rows))
        for name, c in toy.choices.items()
    }
    found = []
    for again in (False, True):
        net.checkpoint_cells = again
        net.zero_grad()
        net(x, Mixture(groups)).square().sum().backward()
        found.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(*found)


def test_tas_7_a_final_network_copies_no_weights_of_the_supernet():
    toy = space()
    net, final = supernet(toy, MixedOp), final_network(toy, some(toy))
    width = final.stem[0].out_channels
    assert not torch.equal(final.stem[0].weight, net.stem.conv.weight[:width])
    assert not torch.equal(final.head[-1].bias, net.head[-1].bias)


@pytest.mark.parametrize("seed", range(3))
def test_an_exported_file_is_the_network(seed: int, tmp_path: Path):
    toy = space()
    architecture = some(toy, seed)
    net = final_network(toy, architecture).eval()
    facts = {
        "classes": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.5] * 3, "resize": "bilinear",
        "parameters": parameters(net), "macs": macs(net),
    }  # fmt: skip
    text = standalone(toy, architecture, facts)
    assert "import archsmith" not in text
    assert "OPERATIONS" not in text
    save_weights(net, tmp_path / "weights.safetensors", {})
    found: dict = {"__name__": "model", "__file__": str(tmp_path / "model.py")}
    exec(compile(text, "model.py", "exec"), found)
    x = torch.randn(2, 3, 7, 8)
    assert torch.equal(found["load"]()(x), net(x))


def test_what_the_space_cannot_is_one_line():
    toy = space()
    with pytest.raises(ValueError, match="set strategy/mixed_op=full"):
        supernet(toy, partial(PartialMixedOp, k=2))
    with pytest.raises(ValueError, match="auxiliary_weight: expected 0, as space tas has no"):
        final_network(toy, some(toy), auxiliary=True)
    check_shapes(supernet(toy, MixedOp))
