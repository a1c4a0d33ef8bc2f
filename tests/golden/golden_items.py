"""What each item of forward.npz computes, built from our modules: `FAMILIES`, `build`.

Left out: `goldnas`, which belongs to its strategy.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from golden_files import arch_str_edges, genotype_edges, one_each
from golden_modules import (
    Edges,
    chosen,
    darts_cell,
    darts_space,
    group_of,
    mixed,
    mixture_of,
    nasbench201_cell,
    nasbench201_space,
)
from golden_weights import (
    derived_ids,
    fill,
    fill_cell,
    fill_edge,
    fill_network,
    search_ids,
    without_running_statistics,
)
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES as DARTS
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.space import Space
from supernets.mixed_op import MixedOp, PartialMixedOp
from supernets.mixture import Mixture
from supernets.network import final_network, supernet
from supernets.skeleton import ResidualBlock

KINDS = ("normal", "reduce")
PartialMixedOpOf4 = partial(PartialMixedOp, k=4)


class Data:
    """The arrays as tensors, with the genotypes they name; `read` collects the keys asked for."""

    def __init__(self, golden: Callable):
        self.arrays = golden("forward.npz")
        published = golden("published_genotypes.json")["genotypes"]
        self.genotypes = {each["name"]: each["genotype"] for each in published}
        self.meta = json.loads(str(self.arrays["meta"]))
        self.C, self.phase = self.meta["C"], self.meta["phase"]
        self.read = {"meta"}

    def __getitem__(self, key: str) -> Tensor:
        self.read.add(key)
        return torch.from_numpy(self.arrays[key])

    def leaf(self, key: str) -> Tensor:
        return self[key].clone().requires_grad_()


class Item(NamedTuple):
    """A filled module, a call that gives its output, tensors that may have gradients on file."""

    module: nn.Module
    output: Callable[[], Tensor]
    leaves: Mapping[str, Tensor]


def darts_cell_inputs(data: Data, kind: str) -> list[Tensor]:
    return [data["cell_s0_big" if kind == "normal_after_reduce" else "cell_s0"], data["cell_s1"]]


# Families of items: (data, *the rest of the item's name) -> Item


def op_item(data: Data, family: Mapping, name: str, c_out: int, stride: str, affine: str) -> Item:
    """`<pool>+bn` is the pool of a supernet, `<pool>` that of a final network."""
    bare = name.removesuffix("+bn")
    op = partial(family[bare], affine=affine == "affine1", search=name != bare)
    module = op(data.C, c_out, int(stride[-1])).double()
    fill(module, 10 * list(family).index(bare), data.phase)
    x = data["x"]
    return Item(module, lambda: module(x), {})


def darts_op(data: Data, name: str, stride: str, affine: str) -> Item:
    return op_item(data, DARTS, name, data.C, stride, affine)


def nasbench201_op(data: Data, name: str, shape: str, affine: str) -> Item:
    c_out = {"same": data.C, "double": 2 * data.C}[shape.split("_")[0]]
    return op_item(data, NASBENCH201, name, c_out, shape, affine)


def mixed_edge(data: Data, stride: str, *, mixed_op: Callable, x: str, alpha: str) -> Item:
    leaves = {"x": data.leaf(x), "alpha": data.leaf(alpha)}
    c = leaves["x"].size(1)
    module = mixed_op(list(DARTS.values()), c, c, int(stride[-1])).double()
    everything = range(len(DARTS))
    fill_edge(module, [10 * o for o in everything], data.phase)
    return Item(module, lambda: module(leaves["x"], leaves["alpha"].softmax(0), everything), leaves)


def search_cell(data: Data, kind: str, *, mixed_op: Callable, C: str, raw: Sequence[str]) -> Item:
    channels = data.meta[C]
    cell = darts_space(channels).cells[group_of(kind)]
    fill_with = mixed(cell, DARTS, mixed_op)
    module = darts_cell(kind, data.C, channels, fill_with, affine=False)
    fill_cell(module, search_ids(cell), data.phase)
    inputs = darts_cell_inputs(data, kind)
    leaves = {name: data.leaf(f"cell_{name}s") for name in raw}
    return Item(module, lambda: module(inputs, mixture_of(*leaves.values())), leaves)


def derived_cell(data: Data, genotype: str, kind: str) -> Item:
    edges = genotype_edges(data.genotypes[genotype][group_of(kind)])
    fill_with = chosen(darts_space(data.C).cells[group_of(kind)], DARTS, edges)
    module = darts_cell(kind, data.C, data.C, fill_with, affine=True)
    fill_cell(module, derived_ids(edges), data.phase)
    inputs = darts_cell_inputs(data, kind)
    return Item(module, lambda: module(inputs, None), {})


def nasbench201_search_cell(data: Data, variant: str) -> Item:
    affine, track = (part[-1] == "1" for part in variant.split("_"))
    cell = nasbench201_space(data.C).cells["cell"]
    fill_with = mixed(cell, NASBENCH201, partial(MixedOp, affine=affine))
    module = nasbench201_cell(data.C, fill_with)
    fill_cell(module, search_ids(cell), data.phase)
    if not track:
        without_running_statistics(module)
    leaves = {"x": data.leaf("x"), "alpha": data.leaf("nb201_alphas")}
    return Item(module, lambda: module([leaves["x"]], mixture_of(leaves["alpha"])), leaves)


def nasbench201_infer_cell(data: Data, n: str) -> Item:
    edges = arch_str_edges(data.meta["nb201_infer_cell_archs"][int(n)])
    cell = nasbench201_space(data.C).cells["cell"]
    module = nasbench201_cell(data.C, chosen(cell, NASBENCH201, edges))
    fill_cell(module, derived_ids(edges), data.phase)
    x = data["x"]
    return Item(module, lambda: module([x], None), {})


def residual_block(data: Data, stride: str) -> Item:
    module = ResidualBlock(data.C, 2 * data.C).double()
    fill(module, 0, data.phase)
    x = data["x"]
    return Item(module, lambda: module(x), {})


def search_net(
    data: Data, space: Space, mixed_op: Callable, raw: Mapping[str, Mapping[str, Tensor]]
) -> Item:
    """`raw`: group -> name of the gradient on file -> alphas, then betas if the method has any."""
    net = supernet(space, mixed_op).double()
    fill_network(net, {group: search_ids(cell) for group, cell in space.groups.items()}, data.phase)
    x = data["x_image"]

    def output() -> Tensor:
        groups = {group: mixture_of(*tensors.values()) for group, tensors in raw.items()}
        return net(x, Mixture(groups))

    leaves = {name: tensor for tensors in raw.values() for name, tensor in tensors.items()}
    return Item(net, output, leaves)


def darts_net(data: Data, *, mixed_op: Callable, C: str, raw: Sequence[str]) -> Item:
    leaves = {
        kind: {f"{name}_{kind}": data.leaf(f"net__{name}_{kind}") for name in raw} for kind in KINDS
    }
    return search_net(data, darts_space(data.meta[C]), mixed_op, leaves)


def nasbench201_net(data: Data) -> Item:
    raw = {"cell": {"alpha": data.leaf("nb201_alphas")}}
    return search_net(data, nasbench201_space(data.C), MixedOp, raw)


def final_net(data: Data, space: Space, edges: Mapping[str, Edges]) -> Item:
    """`edges`: group -> its genotype."""
    choices = {group: one_each(each) for group, each in edges.items()}
    net = final_network(space, Architecture.of(space, choices)).double()
    fill_network(net, {group: derived_ids(each) for group, each in edges.items()}, data.phase)
    x = data["x_image"]
    return Item(net, lambda: net(x), {})


def darts_final_net(data: Data) -> Item:
    """Of the genotype whose cells are on file; the excerpts have none, but only one of DARTS."""
    named = {key.split("__")[1] for key in data.arrays if key.startswith("darts_derived_cell")}
    [name] = named or {name for name in data.genotypes if name.startswith("DARTS_V")}
    edges = {kind: genotype_edges(data.genotypes[name][kind]) for kind in KINDS}
    return final_net(data, darts_space(data.C), edges)


def nasbench201_final_net(data: Data) -> Item:
    edges = arch_str_edges(data.meta["nb201_infer_cell_archs"][0])
    return final_net(data, nasbench201_space(data.C), {"cell": edges})


FULL = {"mixed_op": MixedOp, "C": "C"}
PARTIAL = {"mixed_op": PartialMixedOpOf4, "C": "C_pcdarts"}
FAMILIES: dict[str, Callable[..., Item]] = {
    "darts_op": darts_op,
    "darts_mixed": partial(mixed_edge, mixed_op=MixedOp, x="x", alpha="darts_mixed__alpha"),
    "darts_cell": partial(search_cell, **FULL, raw=["alpha"]),
    "darts_derived_cell": derived_cell,
    "pcdarts_mixed": partial(
        mixed_edge, mixed_op=PartialMixedOpOf4, x="x_pc", alpha="pcdarts_mixed__alpha"
    ),
    "pcdarts_cell": partial(search_cell, **PARTIAL, raw=["alpha", "beta"]),
    "nb201_op": nasbench201_op,
    "nb201_cell": nasbench201_search_cell,
    "nb201_infer_cell": nasbench201_infer_cell,
    "nb201_resblock": residual_block,
    "net__darts_search_l3": partial(darts_net, **FULL, raw=["alphas"]),
    "net__pcdarts_search_l3": partial(darts_net, **PARTIAL, raw=["alphas", "betas"]),
    "net__darts_retrain_l3": darts_final_net,
    "net__nb201_search_n1": nasbench201_net,
    "net__nb201_infer_n1": nasbench201_final_net,
}


def build(data: Data, item: str) -> Item:
    [family] = [family for family in FAMILIES if f"{item}__".startswith(f"{family}__")]
    rest = item.removeprefix(family).removeprefix("__")
    return FAMILIES[family](data, *(rest.split("__") if rest else []))
