"""Fewer channels of a traced network: which are kept, its layout, its weights, its costs."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from supernets.channel_groups import FIXED, ChannelGroups, Group, Marks, Product
from supernets.traced import Layout

Kept = Sequence[Sequence[int]]  # of each group, the units that stay, counted from its first
Importance = Literal["l1", "l2", "gamma"]


def widths_of(units: int, channels: int, divisor: int, most: int) -> list[int]:
    """The widths that a group offers, in units, rising to all: `most` at most, evenly spaced, whose
    channels are multiples of the divisor, but for the last."""
    step = next(n for n in range(1, divisor + 1) if n * channels % divisor == 0)
    even = {-(-units * k // most // step) * step for k in range(1, most + 1)}
    return [*sorted(width for width in even if 0 < width < units), units]


# -- order


def scores(state: Mapping[str, Tensor], found: ChannelGroups, kind: Importance) -> Tensor:
    """The importance of every unit, (U,) float64: over all tensors of a group, the sum of the norms
    of its slices, each divided by the tensor's mean; `gamma`: of scales of batch norms alone, and
    where a group has none, as `l2`."""
    total = sum(len(group.units) for group in found.groups)
    slices, scales = torch.zeros(total).double(), torch.zeros(total).double()
    for axis in found.axes:
        tensor, marks = state[axis.tensor].double().cpu(), torch.tensor(axis.marks)
        if tensor.dim() < 2 and not axis.tensor.endswith(".weight"):
            continue
        rows = tensor.movedim(axis.dim, 0).flatten(1) if tensor.dim() > 1 else tensor[:, None]
        norm = rows.norm(p=1 if kind == "l1" else 2, dim=1)
        chosen = marks != FIXED
        share = torch.zeros(total).double().index_add(0, marks[chosen], norm[chosen])
        share = _by_mean(share, [g for g in found.groups if g.units.start in marks])
        slices += share
        scales += share if tensor.dim() == 1 else 0
    if kind == "gamma":
        for group in found.groups:
            part = slice(group.units.start, group.units.stop)
            if scales[part].any():
                slices[part] = scales[part]
    return slices


def _by_mean(share: Tensor, groups: Sequence[Group]) -> Tensor:
    for group in groups:
        part = slice(group.units.start, group.units.stop)
        share[part] /= share[part].mean().clamp_min(torch.finfo(torch.float64).tiny)
    return share


def order(state: Mapping[str, Tensor], found: ChannelGroups, kind: Importance) -> list[list[int]]:
    """The units of each group, the most important first; of equal ones the first."""
    given = scores(state, found, kind)
    return [
        torch.argsort(given[g.units.start : g.units.stop], descending=True, stable=True).tolist()
        for g in found.groups
    ]


def kept_of(ordered: Sequence[Sequence[int]], widths: Sequence[int]) -> list[list[int]]:
    """The most important units of each group in the order of the network, so that the full width
    changes nothing."""
    return [sorted(units[:width]) for units, width in zip(ordered, widths, strict=True)]


# -- layout and weights


def count(marks: Marks, found: ChannelGroups, widths: Sequence[int]) -> int:
    """How many channels of an axis are left."""
    groups = group_of(found)
    return sum(u == FIXED or u - found.groups[g].units.start < widths[g] for u, g in (
        (u, groups[u] if u != FIXED else 0) for u in marks
    ))  # fmt: skip


def group_of(found: ChannelGroups) -> list[int]:
    """The group of every unit."""
    return [g for g, group in enumerate(found.groups) for _ in group.units]


def narrowed(layout: Layout, found: ChannelGroups, widths: Sequence[int]) -> Layout:
    """The layout with these widths. All full: the same."""
    modules = {path: (kind, dict(args)) for path, (kind, args) in layout["modules"].items()}
    steps = {step[0]: list(step) for step in layout["steps"]}
    for owner, key, marks, of_step in found.arguments:
        left = count(marks, found, widths)
        if of_step:
            args = list(steps[owner][3])
            args[1] = (left,)
            steps[owner][3] = tuple(args)
        else:
            modules[owner][1][key] = (left,) if key == "normalized_shape" else left
    tensors: dict[str, dict[str, list[int]]] = {"parameters": {}, "buffers": {}}
    for kind, held in tensors.items():
        held |= {path: list(shape) for path, shape in layout[kind].items()}  # type: ignore[literal-required]
    for axis in found.axes:
        for held in tensors.values():
            if axis.tensor in held:
                held[axis.tensor][axis.dim] = count(axis.marks, found, widths)
    return {**layout, "modules": modules, "steps": [tuple(s) for s in steps.values()], **tensors}  # type: ignore[typeddict-item]


def positions(marks: Marks, found: ChannelGroups, kept: Kept) -> Tensor:
    """The positions of an axis that stay. The first unit kept takes the place of the first one."""
    at: dict[int, list[int]] = {}
    for p, unit in enumerate(marks):
        at.setdefault(unit, []).append(p)
    seen: dict[int, int] = {}
    groups, chosen = group_of(found), list[int]()
    for p, unit in enumerate(marks):
        if unit == FIXED:
            chosen.append(p)
            continue
        g, turn = groups[unit], seen.get(unit, 0)
        seen[unit] = turn + 1
        start = found.groups[g].units.start
        if unit - start < len(kept[g]):
            chosen.append(at[start + kept[g][unit - start]][turn])
    return torch.tensor(chosen, dtype=torch.long)


def cut(state: Mapping[str, Tensor], found: ChannelGroups, kept: Kept) -> dict[str, Tensor]:
    """The weights of the network with these units."""
    state = dict(state)
    for axis in found.axes:
        index = positions(axis.marks, found, kept)
        if len(index) < len(axis.marks) or index.tolist() != list(range(len(index))):
            tensor = state[axis.tensor]
            state[axis.tensor] = tensor.index_select(axis.dim, index.to(tensor.device))
    return state


# -- costs


class Line(NamedTuple):
    """Channels of axes (L,) for the widths w (G,) of groups: fixed (L,) + slopes (L, G) w."""

    fixed: Tensor
    slopes: Tensor

    def to(self, like: Tensor) -> "Line":
        return Line(self.fixed.to(like), self.slopes.to(like))

    def at(self, widths: Tensor) -> Tensor:
        return self.fixed + self.slopes @ widths


class Cost(NamedTuple):
    """Costs for the widths of groups: the sum of each * inputs * outputs, and what is fixed."""

    each: Tensor  # (L,)
    inputs: Line
    outputs: Line
    fixed: float

    def to(self, like: Tensor) -> "Cost":
        return Cost(self.each.to(like), self.inputs.to(like), self.outputs.to(like), self.fixed)

    def mean(self, widths: Tensor, variances: Tensor) -> Tensor:
        """The mean for independent widths with these means and variances (G,), 0-dim. A group that
        is the input and the output of a layer adds the variance to the product of means."""
        both = (self.inputs.slopes * self.outputs.slopes) @ variances
        products = self.inputs.at(widths) * self.outputs.at(widths) + both
        return self.fixed + (self.each * products).sum()

    def of(self, widths: Sequence[int]) -> int:
        """The cost of these widths."""
        given = torch.tensor(widths, dtype=torch.float64)
        return round(float(self.mean(given, torch.zeros_like(given))))


def _line(several: Sequence[Marks], found: ChannelGroups) -> Line:
    fixed, slopes = torch.zeros(len(several)), torch.zeros(len(several), len(found.groups))
    groups = group_of(found)
    for i, marks in enumerate(several):
        for unit in marks:
            if unit == FIXED:
                fixed[i] += 1
            else:
                slopes[i, groups[unit]] += 1
    for g, group in enumerate(found.groups):
        slopes[:, g] /= len(group.units)
    return Line(fixed.double(), slopes.double())


def cost_of(products: Sequence[Product], found: ChannelGroups, total: int) -> Cost:
    """The cost of products; total: with all channels, so that what has no product is fixed."""
    inputs = _line([p.inputs for p in products], found)
    outputs = _line([p.outputs for p in products], found)
    cost = Cost(torch.tensor([float(p.each) for p in products]).double(), inputs, outputs, 0.0)
    return cost._replace(fixed=float(total - cost.of([len(g.units) for g in found.groups])))


def parameter_products(parameters: Mapping[str, Any], found: ChannelGroups) -> list[Product]:
    """The sizes of parameters as products of their two axes. parameters: name -> shape."""
    axes: dict[str, dict[int, Marks]] = {}
    for axis in found.axes:
        axes.setdefault(axis.tensor, {})[axis.dim] = axis.marks
    products = []
    for name, shape in parameters.items():
        own, size = axes.get(name, {}), 1
        for d, length in enumerate(shape):
            size *= 1 if d in own else length
        marks = [*own.values(), [FIXED], [FIXED]][:2]
        products.append(Product(size, *marks))
    return products
