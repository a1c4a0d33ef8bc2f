"""Parameters, multiply-accumulates and shapes are those of the public implementations, exactly."""

import copy
from functools import partial

import pytest
import torch
from golden_files import arch_str_edges, cases, genotype_edges, one_each
from torch import nn

from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES as DARTS
from search_spaces.darts import darts
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space
from supernets.costs import macs, parameters
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.network import Network, final_network, supernet

CIFAR = {"nodes": 4, "input_shape": (3, 32, 32), "classes": 10, "stem": "small"}
IMAGENET = {"nodes": 4, "input_shape": (3, 224, 224), "classes": 1000, "stem": "imagenet"}
NETWORKS = {
    "cifar_c36_l20": dict(channels=36, layers=20, **CIFAR),
    "cifar_c16_l8": dict(channels=16, layers=8, **CIFAR),
    "imagenet_c48_l14": dict(channels=48, layers=14, **IMAGENET),
}


@pytest.fixture(autouse=True)
def nothing_but_what_counts(monkeypatch):
    """For speed: norms and ReLUs, which count nothing, pass x on; networks are not copied."""
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda self, x: x)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x)
    monkeypatch.setattr(copy, "deepcopy", lambda net: net)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def stem_size(net: Network) -> int:
    return size(net.stem) + size(net.stem_second)


def published(file: dict) -> dict[str, tuple[str, dict, dict]]:
    """`genotype-network` -> network, genotype, counts; none with candidates that we lack."""
    return {
        f"{each['name']}-{network}": (network, each["genotype"], counts)
        for each in file["genotypes"]
        if set(each["extra_ops"]) <= {"noise"}
        for network, counts in each["counts"].items()
    }


@pytest.mark.slow
@cases("published_genotypes.json", published)
def test_final_network_of_a_published_genotype(golden, case):
    network, genotype, expected = case
    space = darts(candidates=[*DARTS, "noise"], **NETWORKS[network])
    choices = {kind: one_each(genotype_edges(genotype[kind])) for kind in ("normal", "reduce")}
    assert genotype["normal_concat"] == genotype["reduce_concat"] == [2, 3, 4, 5]
    with torch.device("meta"):
        net = final_network(space, Architecture.of(space, choices), auxiliary=True)

    assert expected == {
        "params_without_aux": parameters(net),
        "params_with_aux": size(net),
        "params_aux_head": size(net.auxiliary),
        "params_stem": stem_size(net),
        "params_classifier": size(net.head),
        "params_per_cell": [size(layer) for layer in net.layers],
        "macs": macs(net),
    }


def nasbench201_of(channels: int, cells: int) -> Space:
    return nasbench201(
        layers=3 * cells + 2,
        nodes=3,
        channels=channels,
        candidates=list(NASBENCH201),
        input_shape=(3, 32, 32),
        classes=10,
    )


@cases("nb201_counts.json", lambda file: {each["arch_str"]: each for each in file["architectures"]})
def test_final_network_of_a_nasbench201_string(golden, case):
    space = nasbench201_of(channels=16, cells=5)
    choices = one_each(arch_str_edges(case["arch_str"]))
    architecture = Architecture.of(space, {"cell": choices})
    with torch.device("meta"):
        net = final_network(space, architecture)

    assert parameters(net) == case["params"]
    assert macs(net) == case["macs"]
    kept = architecture.choices["cell"]
    assert space.cells["cell"].connects(kept) == case["is_connected"]


def check_supernet(net: Network, expected: dict, *, fewer_in_head: int = 0) -> None:
    """Weights of stem, cells and all, and the (E, O) of each group, are those expected."""
    assert stem_size(net) == expected["stem"]
    assert [size(layer) for layer in net.layers] == expected["per_cell"]
    assert [size(part) for part in net.head if isinstance(part, nn.Linear)] == [
        expected["classifier"]
    ]
    assert parameters(net) - fewer_in_head == expected["weight_params_excluding_aux"]

    shapes = expected["arch_params"]
    cells = list(net.space.groups.values())
    alphas = [shape for name, shape in shapes.items() if not name.startswith("betas")]
    assert [[len(cell.edges), cell.width] for cell in cells] == alphas
    betas = [shape for name, shape in shapes.items() if name.startswith("betas")]
    assert not betas or [[len(cell.edges)] for cell in cells] == betas


def supernets(family: str):
    """The cases of `supernet_counts.json` whose names start so."""
    return cases(
        "supernet_counts.json",
        lambda file: {
            each["name"]: each for each in file["supernets"] if each["name"].startswith(family)
        },
    )


@supernets("DARTS")
def test_darts_supernet(golden, case):
    config = case["config"]
    space = darts(channels=config["C"], layers=config["layers"], candidates=list(DARTS), **CIFAR)
    with torch.device("meta"):
        check_supernet(supernet(space, MixedOp), case)


@pytest.mark.slow
@supernets("PC-DARTS")
def test_pcdarts_supernet(golden, case):
    config = case["config"]
    shape = CIFAR if config["classes"] == 10 else dict(IMAGENET, stem_multiplier=3)
    space = darts(channels=config["C"], layers=config["layers"], candidates=list(DARTS), **shape)
    with torch.device("meta"):
        check_supernet(supernet(space, partial(PartialMixedOp, k=config["K"])), case)


@supernets("RobustDARTS")
def test_robustdarts_supernet(golden, case):
    config = case["config"]
    candidates = {kind: config[f"primitives_{kind}"] for kind in ("normal", "reduce")}
    space = darts(channels=config["C"], layers=config["layers"], candidates=candidates, **CIFAR)
    with torch.device("meta"):
        check_supernet(supernet(space, MixedOp), case)


@supernets("GOLD-NAS")
def test_goldnas_supernet(golden, case):
    """Alphas per layer. Its skip_connect has a batch norm at stride 1, which has no parameters."""
    config = case["config"]
    space = darts(
        channels=config["C"],
        layers=config["layers"],
        candidates=["skip_connect", "sep_conv_3x3"],
        share_alphas=False,
        **CIFAR,
    )
    with torch.device("meta"):
        check_supernet(supernet(space, MixedOp), case)


@supernets("NAS-Bench-201")
def test_nasbench201_supernet(golden, case):
    """`GenericNAS201Model` differs: its last batch norm lacks scale and shift, 2 * 64 fewer."""
    config = case["config"]
    space = nasbench201_of(channels=config["C"], cells=config["N"])
    with torch.device("meta"):
        net = supernet(space, MixedOp, affine=config["affine"])
    fewer = 2 * 4 * config["C"] if "GenericNAS201Model" in case["name"] else 0
    check_supernet(net, case, fewer_in_head=fewer)
