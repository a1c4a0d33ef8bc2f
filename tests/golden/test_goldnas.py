"""GOLD-NAS against its public code: parse, sizes, forward passes, cost and gradients."""

from collections.abc import Iterable
from typing import Any

import torch
from golden_files import cases
from golden_items import Data
from golden_modules import darts_cell, mixed
from golden_weights import fill_cell, fill_network, search_ids
from test_counts import check_supernet, size, stem_size, supernets
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.cells import Cell, complete_edges
from search_spaces.goldnas import CANDIDATES, goldnas
from search_spaces.space import Space
from strategies.discretisation.survivors import survivors
from strategies.losses.gate_cost import resource
from strategies.relaxation.sigmoid import Sigmoid
from strategies.shares import same_target, shares
from supernets.costs import macs, parameters
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture, Mixture, everything_active
from supernets.network import final_network, supernet

PAIR = list(CANDIDATES)
CELL = Cell(2, 4, complete_edges(2, 4, PAIR), keep=2)
STRIDED_SKIPS = [0, 1, 2, 3, 5, 6, 9, 10]  # edges from the cell's inputs


def space_of(layers: int, channels: int, side: int = 32) -> Space:
    return goldnas(
        layers=layers,
        nodes=4,
        channels=channels,
        candidates=PAIR,
        input_shape=(3, side, side),
        classes=10,
    )


def gates_and_alive(alphas: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """All gates, and which are more than eta of the sum into their node."""
    gates, _ = Sigmoid()(alphas, torch.ones_like(alphas, dtype=torch.bool))
    return gates, shares(gates, same_target(CELL)) > eta


# -- parse


@cases("genotype_parse.json", lambda file: {case["id"]: case for case in file["gold_nas"]})
def test_survivors_are_those_of_the_public_code(golden, case):
    for alphas, expected in zip(case["alphas"], case["gene"], strict=True):
        gates, alive = gates_and_alive(torch.tensor(alphas), case["eta_min"])
        kept = survivors(CELL, gates, None, alive)
        found = [
            [name, *map(int, edge.split("-"))] for edge, names in kept.items() for name in names
        ]
        assert found == expected
    assert case["concat"] == list(CELL.targets)


# -- sizes


@supernets("GOLD-NAS")
def test_supernet(golden, case):
    with torch.device("meta"):
        net = supernet(space_of(case["config"]["layers"], case["config"]["C"]), MixedOp)
    check_supernet(net, case)


def genotypes(file: dict) -> dict[str, Any]:
    return {
        f"{each['name']}-{network}": (each, network)
        for each in file["gold_nas_genotypes"]
        for network in each["counts"]
    }


@cases("published_genotypes.json", genotypes)
def test_final_network_of_a_published_architecture(golden, case):
    published, network = case
    assert network == "cifar_c36"
    space = space_of(len(published["gene"]), 36)
    choices = {}
    for group, gene in zip(space.groups, published["gene"], strict=True):
        choices[group] = {f"{source}-{target}": [] for _, source, target in gene}
        for name, source, target in gene:
            choices[group][f"{source}-{target}"].append(name)
    with torch.device("meta"):
        net = final_network(space, Architecture.of(space, choices), auxiliary=True)

    assert published["counts"][network] == {
        "params_without_aux": parameters(net),
        "params_with_aux": size(net),
        "params_aux_head": size(net.auxiliary),
        "params_stem": stem_size(net),
        "params_classifier": size(net.head),
        "params_per_cell": [size(layer) for layer in net.layers],
        "macs": macs(net),
    }


# -- forward passes


def mixture_of(alphas: Tensor, eta: float) -> GroupMixture:
    gates, alive = gates_and_alive(alphas, eta)
    return GroupMixture(gates, None, everything_active(alive))


def close(found: Tensor, expected: Tensor) -> None:
    bound = 1e-9 * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=bound)


def cells(keys: Iterable[str]) -> dict[str, tuple[str, float]]:
    """`normal-0.06` -> normal, 0.06."""
    found = {}
    for key in keys:
        if key.startswith("goldnas__cell_") and key.endswith("out"):
            kind, eta = key.split("__")[1].removeprefix("cell_").split("_eta")
            found[f"{kind}-{eta}"] = (kind, float(eta))
    return found


@cases("forward.npz", cells)
def test_cell(golden, case):
    (kind, eta), data = case, Data(golden)
    alphas = data.leaf("goldnas__alphas")
    module = darts_cell(kind, data.C, data.C, mixed(CELL, CANDIDATES, MixedOp), affine=False)
    fill_cell(module, search_ids(CELL), data.phase)
    y = module([data["cell_s0"], data["cell_s1"]], mixture_of(alphas, eta))
    item = f"goldnas__cell_{kind}_eta{eta}__train"
    close(y, data[f"{item}__out"])
    i = torch.arange(1, y.numel() + 1, dtype=y.dtype)
    [gradient] = torch.autograd.grad(y.flatten() @ torch.cos(0.3 * i), alphas)
    close(gradient, data[f"{item}__grad_alpha"])


def price(space: Space, layer: int, mu: float) -> Tensor:
    """1 + mu F (E, O), F by the rule of the public code: as if images were 32 x 32."""
    place, c = space.layers[layer], space.layers[0].channels
    table = torch.zeros(len(CELL.edges), 2, dtype=torch.double)
    table[:, 1] = 2 * (c * c * 1024 + 9 * 1024 * c * c / place.channels)
    if place.reduction:
        table[STRIDED_SKIPS, 0] = c * c * 1024
    return 1 + mu * 1e-6 * table


def nets(keys: Iterable[str]) -> dict[str, float]:
    """`mu1` -> 1."""
    names = [key.split("__")[1] for key in keys if key.startswith("goldnas__net_mu")]
    return {name.removeprefix("net_"): float(name.removeprefix("net_mu")) for name in names}


@cases("forward.npz", nets)
def test_net_and_cost(golden, case):
    data = Data(golden)
    meta, item = data.meta["goldnas_net"], f"goldnas__net_mu{case:.0f}"
    assert meta["reg_flops"] == 1
    space = space_of(meta["layers"], data.C, side=16)
    alphas = [data.leaf(f"goldnas__net_alphas_cell{i}") for i in range(meta["layers"])]
    net = supernet(space, MixedOp).double()
    fill_network(net, {group: search_ids(CELL) for group in space.groups}, data.phase)
    parts = zip(space.groups, alphas, strict=True)
    mixture = Mixture({group: mixture_of(table, meta["eta_min"]) for group, table in parts})
    close(net(data["x_image"], mixture), data[f"{item}__train__logits"])

    cost = torch.zeros((), dtype=torch.double)
    for i, table in enumerate(alphas):
        gates, alive = gates_and_alive(table, meta["eta_min"])
        cost = cost + resource(gates, alive, price(space, i, case), same_target(CELL))
    close(cost, data[f"{item}__cost"])
    for i, gradient in enumerate(torch.autograd.grad(cost, alphas)):
        close(gradient, data[f"{item}__grad_cost_cell{i}"])


def test_every_key_is_compared(golden):
    keys = {key for key in golden("forward.npz") if key.startswith("goldnas__")}
    cells_known = {f"goldnas__cell_{kind}_eta{eta}" for kind, eta in cells(keys).values()}
    known = {*cells_known, *(f"goldnas__net_{name}" for name in nets(keys))}
    left = {key for key in keys if key.split("__train")[0] not in known and "alphas" not in key}
    assert {key.split("__")[-1].rstrip("0123456789") for key in left} <= {"cost", "grad_cost_cell"}
