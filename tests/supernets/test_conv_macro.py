"""Networks of the space conv_macro. Sources of numbers: the sheet of entangled spaces."""

import itertools
from functools import partial
from pathlib import Path

import pytest
import torch

from archsmith.result.export.standalone import standalone
from archsmith.result.weights import save_weights
from search_spaces.architecture import Architecture
from search_spaces.conv_macro import KERNEL, WIDTH, ConvMacroSpace, conv_macro
from strategies.searchers.random import RandomSearch
from supernets.conv_macro import expected_convs, numbers
from supernets.costs import candidate_macs, macs, parameters
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.network import Network, final_network, supernet

CPU = torch.device("cpu")
PUBLISHED = dict(channels=8, multiples=[1, 2, 4], kernels=[3, 5, 7], head_channels=256)
PUBLISHED |= dict(hidden=[256, 128, 64], last_kernel=7, norm=False, dropout=0.5)
TOY = dict(channels=2, multiples=[1, 2], kernels=[3, 5], head_channels=6, hidden=[4])


def space(**changes) -> ConvMacroSpace:
    sizes = PUBLISHED | TOY | dict(last_kernel=5, input_shape=(3, 9, 8), classes=3, norm=True)
    return conv_macro(**sizes | changes)


def some(space: ConvMacroSpace, seed: int = 0) -> Architecture:
    torch.manual_seed(seed)
    return RandomSearch(space).ask()


def one_hot(architecture: Architecture, space: ConvMacroSpace) -> dict[str, torch.Tensor]:
    return {n: g.gates.double() for n, g in Mixture.of(architecture, space, CPU).groups.items()}


def given_weights(net: Network, source: Network) -> None:
    """Copies the slices that a final network takes of the supernet's weights."""
    state = source.state_dict()
    for name, value in net.state_dict().items():
        full = state[name]
        if name.startswith("convs") and name.endswith("weight"):
            edge = (full.size(-1) - value.size(-1)) // 2
            full = full[..., edge : full.size(-1) - edge, edge : full.size(-1) - edge]
        value.copy_(full[tuple(slice(size) for size in value.shape)])


@pytest.mark.parametrize("norm", [True, False])
def test_entangled_21_an_architecture_is_the_sliced_network_bit_for_bit(norm: bool):
    toy = space(norm=norm)
    torch.manual_seed(0)
    whole, x = supernet(toy, MixedOp).eval(), torch.randn(2, 3, 9, 8)
    for seed in range(4):
        architecture = some(toy, seed)
        alone = final_network(toy, architecture).eval()
        given_weights(alone, whole)
        assert torch.equal(whole(x, Mixture.of(architecture, toy, CPU)), alone(x))


def test_a_batch_norm_removes_the_gate_of_an_option_that_runs_alone():
    """So `gdas` needs norm=False; the diagnosis of a search says so (docs/strategies/gdas.md)."""
    sizes = []
    for norm in (True, False):
        toy = space(norm=norm, dropout=0.0)
        torch.manual_seed(0)
        whole, x = supernet(toy, MixedOp).double(), torch.randn(4, 3, 9, 8).double()
        for module in whole.modules():
            if hasattr(module, "eps"):
                module.eps = 1e-12
        groups = Mixture.of(some(toy), toy, CPU).groups
        gates = {n: g.gates.double().requires_grad_() for n, g in groups.items()}
        path = Mixture({n: GroupMixture(gates[n], None, g.active) for n, g in groups.items()})
        loss = torch.nn.functional.cross_entropy(whole(x, path), torch.tensor([0, 1, 2, 0]))
        found = torch.autograd.grad(loss, list(gates.values()))
        sizes.append(max(float(grad.abs().max()) for grad in found))
    assert sizes[0] < 1e-6 * sizes[1]


def test_entangled_21_one_hot_gates_of_all_options_are_the_sliced_network():
    toy = space()
    torch.manual_seed(0)
    whole, x = supernet(toy, MixedOp).double().eval(), torch.randn(2, 3, 9, 8).double()
    architecture = some(toy)
    groups = Mixture.of(architecture, toy, CPU).groups
    everything = Mixture(
        {n: GroupMixture(g.gates.double(), None, [[0, 1]] * 4) for n, g in groups.items()}
    )
    found = whole(x, everything)
    torch.testing.assert_close(found, whole(x, Mixture(groups)), rtol=0, atol=1e-12)


def test_entangled_18_published_counts():
    made = space(**PUBLISHED | dict(input_shape=(3, 32, 32), classes=10))
    counts, whole = [], supernet(made, MixedOp)
    for o in (0, 2):
        rows = {n: {r.name: [r.names[o]] for r in c.rows} for n, c in made.choices.items()}
        with torch.device("meta"):
            net = final_network(made, Architecture.of(made, rows))
        counts.append((parameters(net), macs(net)))
        gates = one_hot(Architecture.of(made, rows), made)
        assert whole.expected_macs(gates).item() == counts[-1][1]
    assert counts == [(3_228_954, 35_062_400), (7_725_450, 431_104_640)]


def test_entangled_18_the_expected_cost_at_uniform_gates():
    made = space(**PUBLISHED | dict(input_shape=(3, 32, 32), classes=10))
    gates = {n: torch.full((4, 3), 1 / 3, dtype=torch.double) for n in (WIDTH, KERNEL)}
    with torch.device("meta"):
        found = supernet(made, MixedOp)
    assert found.expected_macs(gates).item() == pytest.approx(130_653_937.78, abs=0.01)
    convs = expected_convs(made, gates, *numbers(made, gates[WIDTH]))
    total = sum(float(weights + biases) for _, weights, biases in convs)
    assert total + 2_401_354 == pytest.approx(4_681_569.111, abs=1e-3)


def test_entangled_17_the_expected_cost_is_the_mean_over_all_networks():
    """All 256 networks, weighted by the product of gates that differ in every row."""
    toy = space()
    torch.manual_seed(0)
    gates = {n: torch.rand(4, 2, dtype=torch.double).softmax(1) for n in (WIDTH, KERNEL)}
    with torch.device("meta"):
        net = supernet(toy, MixedOp)
    expected = net.expected_macs(gates)
    mean = torch.zeros((), dtype=torch.double)
    for options in itertools.product(range(2), repeat=8):
        chosen = torch.nn.functional.one_hot(torch.tensor(options), 2).double().view(2, 4, 2)
        share = (gates[WIDTH] * chosen[0]).sum(1).prod() * (gates[KERNEL] * chosen[1]).sum(1).prod()
        mean += share * net.expected_macs({WIDTH: chosen[0], KERNEL: chosen[1]})
    torch.testing.assert_close(expected, mean, rtol=1e-12, atol=0)


def test_the_cost_of_one_hot_gates_is_the_count_of_the_built_network():
    toy = space()
    net = supernet(toy, MixedOp)
    for seed in range(4):
        architecture = some(toy, seed)
        with torch.device("meta"):
            built = macs(final_network(toy, architecture))
        assert net.expected_macs(one_hot(architecture, toy)).item() == built
    tables = candidate_macs(net)  # beside the largest of the others
    assert (tables[WIDTH][:, 1] > tables[WIDTH][:, 0]).all()


def test_a_supernet_has_the_parameters_of_the_largest_network():
    toy = space()
    largest = Architecture.of(toy, toy.unpruned)
    assert parameters(supernet(toy, MixedOp)) == parameters(final_network(toy, largest))


@pytest.mark.parametrize("norm", [True, False])
def test_every_gate_and_every_weight_gets_a_gradient(norm: bool):
    toy = space(norm=norm, input_shape=(3, 16, 16))  # on 2x2 maps the rim of a kernel meets nothing
    torch.manual_seed(0)
    net = supernet(toy, MixedOp).train()
    alphas = {n: torch.zeros(4, 2, requires_grad=True) for n in (WIDTH, KERNEL)}
    groups = {n: GroupMixture(a.softmax(1), None, [[0, 1]] * 4) for n, a in alphas.items()}
    net(torch.randn(8, 3, 16, 16), Mixture(groups)).square().sum().backward()
    assert all(alpha.grad.abs().min() > 0 for alpha in alphas.values())
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert without == []


def test_the_exported_network_gives_the_same_logits(tmp_path: Path):
    toy = space()
    architecture = some(toy)
    net = final_network(toy, architecture).eval()
    facts = {
        "classes": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.5] * 3, "resize": "bilinear",
        "parameters": parameters(net), "macs": macs(net),
    }  # fmt: skip
    text = standalone(toy, architecture, facts)
    assert "import archsmith" not in text
    save_weights(net, tmp_path / "weights.safetensors", {})
    found: dict = {"__name__": "model", "__file__": str(tmp_path / "model.py")}
    exec(compile(text, "model.py", "exec"), found)
    x = torch.randn(2, 3, 9, 8)
    assert torch.equal(found["load"]()(x), net(x))


def test_what_the_space_cannot_is_one_line():
    with pytest.raises(ValueError, match="PartialMixedOp cannot mix; set strategy/mixed_op=full"):
        supernet(space(), partial(PartialMixedOp, k=2))
    with pytest.raises(ValueError, match="auxiliary_weight: expected 0, as space conv_macro"):
        final_network(space(), some(space()), auxiliary=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": [3, 4]}, "kernels: expected odd numbers, found 4"),
        ({"kernels": [5, 3]}, r"kernels: expected rising numbers, found \[5, 3\]"),
        ({"multiples": []}, r"multiples: expected rising numbers, found \[\]"),
        ({"last_kernel": 7}, "last_kernel: 7 is too large for images with a side of 8.*at most 6"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        space(**changes)


def saved_bytes(toy: ConvMacroSpace) -> int:
    """Memory that a pass of the supernet keeps for its gradient, with all options."""
    torch.manual_seed(0)
    net, kept = supernet(toy, MixedOp).train(), dict[int, int]()
    groups = {}
    for name, choice in toy.choices.items():
        alphas = torch.zeros(len(choice.rows), choice.width, requires_grad=True)
        everything = [list(range(choice.width))] * len(choice.rows)
        groups[name] = GroupMixture(alphas.softmax(1), None, everything)

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net(torch.randn(4, 3, 16, 16), Mixture(groups))
    return sum(kept.values())


def test_entangled_25_memory_does_not_grow_with_the_options():
    sizes = dict(input_shape=(3, 16, 16), kernels=[5])
    three = saved_bytes(space(multiples=[2, 5, 9], **sizes))
    nine = saved_bytes(space(multiples=list(range(1, 10)), **sizes))
    assert nine == pytest.approx(three, rel=0.05)
