"""Which channels of a traced network can only be cut together.

Sources: Fang et al. 2023, arXiv:2301.12900, for the dependencies; that whole groups of a grouped
convolution are kept, and what is frozen, is our own.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from supernets.trace import BATCH
from supernets.traced import IMAGES, Layout, Step, TracedNetwork, inputs_of

FIXED = -1  # in the place of a unit: a channel that stays
Marks = list[int]  # of each position of an axis, its unit
Axes = dict[int, Marks]  # dimension -> marks, of those whose channels may be cut


class Axis(NamedTuple):
    """A dimension of a parameter or buffer, and the unit of each of its positions."""

    tensor: str
    dim: int
    marks: Marks


class Argument(NamedTuple):
    """An argument of a module, or of a step if `step`, that counts these channels."""

    owner: str
    key: str
    marks: Marks
    step: bool = False


class Read(NamedTuple):
    """Where channels are mixed: the first input of a step, along `dim`. norm: by a norm over them,
    whose result is read by others."""

    step: str
    dim: int
    marks: Marks
    norm: bool = False


class Product(NamedTuple):
    """`each` multiply-accumulates for every pair of an input and an output channel."""

    each: int
    inputs: Marks
    outputs: Marks


class Group(NamedTuple):
    """Channels of which any number of units may be kept. units: of the first to the last. channels:
    of a unit in the layer that makes them. frozen: why all of it stays, None if it need not."""

    name: str
    units: range
    channels: int
    frozen: str | None


class ChannelGroups(NamedTuple):
    """The groups of a network, and all places that know the number of their channels."""

    groups: list[Group]
    axes: list[Axis]
    arguments: list[Argument]
    reads: list[Read]
    products: list[Product]


class Units:
    """Sets of channels that stay or go together, and why some must stay."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.why: dict[int, str] = {}

    def new(self, count: int) -> Marks:
        first = len(self.parent)
        self.parent += range(first, first + count)
        return list(range(first, first + count))

    def root(self, unit: int) -> int:
        while self.parent[unit] != unit:
            self.parent[unit] = self.parent[self.parent[unit]]
            unit = self.parent[unit]
        return unit

    def join(self, a: Marks, b: Marks, why: str = "it is joined with channels that stay") -> None:
        """Makes channels at the same positions one unit; what stays freezes the other."""
        for one, other in zip(a, b, strict=True):
            if FIXED in (one, other):
                self.freeze([max(one, other)], why)
                continue
            low, high = sorted((self.root(one), self.root(other)))
            self.parent[high] = low
            if high in self.why:
                self.why.setdefault(low, self.why[high])

    def freeze(self, marks: Iterable[int], why: str) -> None:
        for root in {self.root(unit) for unit in marks if unit != FIXED}:
            self.why.setdefault(root, why)


POINTWISE = {
    *("relu", "relu_", "relu6", "hardswish", "hardsigmoid", "hardtanh", "silu", "gelu", "sigmoid"),
    *("tanh", "elu", "leaky_relu", "mish", "softplus", "dropout", "clone", "contiguous", "float"),
    *("ReLU", "ReLU6", "Hardswish", "Hardsigmoid", "Hardtanh", "SiLU", "GELU", "Sigmoid", "Tanh"),
    *("ELU", "LeakyReLU", "Mish", "Softplus", "Dropout", "Dropout2d", "neg", "abs", "exp", "sqrt"),
}
POOLS = {
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate"),
    *("MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "Upsample", "ZeroPad2d"),
    *("max_pool1d", "adaptive_avg_pool1d", "MaxPool1d", "AvgPool1d", "AdaptiveAvgPool1d"),
}
ELEMENTWISE = {"add", "sub", "mul", "div", "truediv", "iadd", "imul", "isub", "add_", "mul_"}
NORMS = {"BatchNorm1d", "BatchNorm2d"}
SIZES = {"size", "dim", "getattr", "getitem"}  # where their results are no tensors


def short(step: Step, net: TracedNetwork) -> str:
    """The class of a step's module, or the last part of its function's name."""
    if step.kind == "module":
        return type(net.net.get_submodule(step.target)).__name__
    return step.target.rpartition(".")[2]


def argument(step: Step, at: int, *names: str) -> Any:
    """An argument by its place or one of its names, as torch also takes those of numpy; or None."""
    given = [*step.args[at : at + 1], *(step.kwargs[n] for n in names if n in step.kwargs)]
    return given[0] if given else None


class Walk:
    """One pass through the steps, which marks the channels of every result."""

    def __init__(self, layout: Layout, net: TracedNetwork, shapes: Mapping[str, Any]):
        self.net, self.shapes, self.units = net, shapes, Units()
        self.tensors = {**dict(net.net.named_parameters()), **dict(net.net.named_buffers())}
        self.marks: dict[str, Axes] = {IMAGES: {}}
        self.held: dict[str, str] = {}  # result -> the parameter or buffer that it is
        self.sizes: dict[str, list[Marks]] = {}  # result -> what each part of a size counts
        self.whole: dict[tuple[str, int], str] = {}  # tensor, dimension -> why it is not cut
        self.made: dict[str, tuple[Marks, Marks]] = {}  # module -> its input and output channels
        self.axes: list[Axis] = []
        self.arguments: list[Argument] = []
        self.reads: list[Read] = []
        self.products: list[Product] = []
        rules: dict[str, Callable[[Step], Axes]] = {
            **dict.fromkeys(POINTWISE, self.same),
            **dict.fromkeys(POOLS, self.pool),
            **dict.fromkeys(ELEMENTWISE, self.elementwise),
            **dict.fromkeys(NORMS, self.batch_norm),
            **dict.fromkeys(("Conv1d", "Conv2d"), self.conv),
            **dict.fromkeys(("cat", "concat"), self.cat),
            **dict.fromkeys(("flatten", "Flatten", "view", "reshape"), self.flatten),
            **dict.fromkeys(("permute", "transpose"), self.permute),
            **{"Linear": self.linear, "mean": self.mean, "LayerNorm": self.layer_norm},
            **{"layer_norm": self.layer_norm, "tensor": self.tensor},
        }
        for step in net.steps:
            name = "tensor" if step.kind == "tensor" else short(step, net)
            rule = rules.get(name, self.unknown)
            if name in SIZES and shapes[step.name] is None:
                self.marks[step.name], self.sizes[step.name] = {}, self.counted(step)
                continue
            if rule not in (self.elementwise, self.layer_norm):
                self.keep(inputs_of(step), step)
            self.marks[step.name] = rule(step)
        self.freeze(self.marks[layout["result"]], "they are the logits")
        self.settle()

    def settle(self) -> None:
        """Freezes what several steps decide: numbers of channels that are computed with, and
        parameters and buffers that one step reads whole."""
        for step in self.net.steps:
            asked = () if step.name in self.sizes else inputs_of(step)
            for marks in chain(*(self.sizes.get(name, ()) for name in asked)):
                self.units.freeze(marks, f"'{step.name}' computes with their number")
        for tensor, dim, marks in self.axes:
            if (tensor, dim) in self.whole:
                self.units.freeze(marks, self.whole[tensor, dim])

    # -- what rules use

    def first(self, step: Step) -> tuple[str, Axes]:
        """The name of the first input, and its marks."""
        name = next(iter(inputs_of(step)))
        return name, self.marks[name]

    def freeze(self, axes: Axes, why: str) -> None:
        for marks in axes.values():
            self.units.freeze(marks, why)

    def unknown(self, step: Step) -> Axes:
        """Any other step: its inputs keep all channels."""
        for name in inputs_of(step):
            self.freeze(self.marks[name], f"'{short(step, self.net)}' ({step.name}) reads them")
        return {}

    def counted(self, step: Step) -> list[Marks]:
        """The channels that each part of a size counts: of `shape`, `size`, or of some parts."""
        name, at = inputs_of(step)[0], argument(step, 1, "dim")
        axes = self.marks[name]
        parts = self.sizes.get(name, [axes.get(d, []) for d in range(len(self.shapes[name] or ()))])
        if isinstance(at, int):
            return [parts[at]] if parts else []
        if isinstance(at, Mapping) and "slice" in at and not inputs_of(step)[1:]:
            return parts[slice(*at["slice"])]
        return parts if at != "dtype" and short(step, self.net) != "dim" else []

    def member(self, tensor: str, dim: int, marks: Marks) -> None:
        """These are the channels of a tensor, and those that an earlier step had for it."""
        known = [axis.marks for axis in self.axes if axis[:2] == (tensor, dim)]
        if known:
            self.units.join(known[0], marks)
        elif tensor in self.tensors and any(unit != FIXED for unit in marks):
            self.axes.append(Axis(tensor, dim, marks))
        else:
            self.whole[tensor, dim] = f"'{tensor}' is joined with channels that stay"

    def keep(self, names: Iterable[str], step: Step) -> None:
        """Parameters and buffers among results are read whole."""
        for name in names:
            tensor = self.held.get(name, "")
            for dim in range(len(self.shapes[name]) if tensor else 0):
                self.whole[tensor, dim] = (
                    f"'{short(step, self.net)}' ({step.name}) reads '{tensor}'"
                )

    def layer(self, step: Step, inputs: Marks, outputs: Marks) -> bool:
        """Whether this is the first call of a module; later calls join its channels."""
        if step.target in self.made:
            for old, new in zip(self.made[step.target], (inputs, outputs), strict=True):
                self.units.join(old, new)
            return False
        self.made[step.target] = (inputs, outputs)
        return True

    # -- rules

    def tensor(self, step: Step) -> Axes:
        self.held[step.name] = step.target
        return {}

    def same(self, step: Step) -> Axes:
        return self.first(step)[1]

    def pool(self, step: Step) -> Axes:
        """Pools over the last dimensions."""
        axes = self.first(step)[1]
        self.freeze({d: m for d, m in axes.items() if d != 1}, f"'{step.name}' pools over them")
        return {d: m for d, m in axes.items() if d == 1}

    def conv(self, step: Step) -> Axes:
        axes = self.first(step)[1]
        module = cast(nn.Conv2d, self.net.net.get_submodule(step.target))
        self.freeze({d: m for d, m in axes.items() if d != 1}, f"'{step.name}' slides over them")
        inputs = axes.get(1, [FIXED] * module.in_channels)
        outputs, groups, path = self.units.new(module.out_channels), module.groups, step.target
        shape = self.shapes[step.name]
        size = shape[0] * math.prod(shape[2:]) * math.prod(module.kernel_size) // BATCH
        if groups > 1:
            per_in, per_out = len(inputs) // groups, len(outputs) // groups
            for g in range(groups):
                whole = inputs[g * per_in : (g + 1) * per_in]
                whole += outputs[g * per_out : (g + 1) * per_out]
                self.units.join(whole[:1] * len(whole), whole, "the images have these channels")
            self.products.append(Product(size * per_in, [FIXED], outputs))
        else:
            self.reads.append(Read(step.name, 1, inputs))
            self.products.append(Product(size, inputs, outputs))
        if self.layer(step, inputs, outputs):
            self.member(f"{path}.weight", 0, outputs)
            self.member(f"{path}.bias", 0, outputs)
            self.arguments += [
                Argument(path, "in_channels", inputs), Argument(path, "out_channels", outputs),
            ]  # fmt: skip
            if groups > 1:
                self.arguments.append(Argument(path, "groups", outputs[:: len(outputs) // groups]))
            else:
                self.member(f"{path}.weight", 1, inputs)
        return {1: outputs}

    def linear(self, step: Step) -> Axes:
        name, axes = self.first(step)
        module, path = cast(nn.Linear, self.net.net.get_submodule(step.target)), step.target
        shape = self.shapes[name]
        last = len(shape) - 1
        inputs = axes.get(last, [FIXED] * module.in_features)
        outputs = self.units.new(module.out_features)
        self.reads.append(Read(step.name, last, inputs))
        self.products.append(Product(math.prod(shape[:-1]) // BATCH, inputs, outputs))
        if self.layer(step, inputs, outputs):
            self.member(f"{path}.weight", 0, outputs)
            self.member(f"{path}.weight", 1, inputs)
            self.member(f"{path}.bias", 0, outputs)
            self.arguments += [
                Argument(path, "in_features", inputs), Argument(path, "out_features", outputs),
            ]  # fmt: skip
        others = {d: m for d, m in axes.items() if d != last}
        self.freeze(others, f"'{step.name}' mixes along another dimension")
        return {last: outputs}

    def batch_norm(self, step: Step) -> Axes:
        axes = self.first(step)[1]
        marks = axes.get(1, [FIXED] * self.shapes[step.name][1])
        if self.layer(step, marks, marks):
            for name in ("weight", "bias", "running_mean", "running_var"):
                self.member(f"{step.target}.{name}", 0, marks)
            self.arguments.append(Argument(step.target, "num_features", marks))
        return axes

    def layer_norm(self, step: Step) -> Axes:
        """A norm over the last dimension: exact if its channels are one whole group."""
        name, axes = self.first(step)
        last = len(self.shapes[name]) - 1
        marks = axes.get(last, [FIXED] * self.shapes[name][last])
        shape: Any = step.args[1] if len(step.args) > 1 else None
        if step.kind == "module":
            shape = cast(nn.LayerNorm, self.net.net.get_submodule(step.target)).normalized_shape
        if not isinstance(shape, tuple | list) or len(shape) != 1:
            self.keep(inputs_of(step), step)
            self.freeze(axes, f"'{step.name}' normalises over several dimensions")
            return {}
        if step.kind == "module":
            if self.layer(step, marks, marks):
                self.member(f"{step.target}.weight", 0, marks)
                self.member(f"{step.target}.bias", 0, marks)
                self.arguments.append(Argument(step.target, "normalized_shape", marks))
        else:
            for given in inputs_of(step)[1:]:
                if given in self.held:
                    self.member(self.held[given], 0, marks)
                else:
                    self.units.freeze(marks, f"'{step.name}' joins them with fixed channels")
            self.arguments.append(Argument(step.name, "normalized_shape", marks, step=True))
        if last in axes:
            self.reads.append(Read(step.name, last, marks, norm=True))
        return axes

    def mean(self, step: Step) -> Axes:
        """A mean over other dimensions than that of channels."""
        name, axes = self.first(step)
        rank = len(self.shapes[name])
        over = argument(step, 1, "dim", "axis")
        over = range(rank) if over is None else [over] if isinstance(over, int) else over
        over = {d % rank for d in over}
        keep = argument(step, 2, "keepdim", "keepdims")
        self.freeze({d: m for d, m in axes.items() if d in over}, f"'{step.name}' is their mean")
        return {
            d - (0 if keep else sum(o < d for o in over)): m
            for d, m in axes.items()
            if d not in over
        }

    def flatten(self, step: Step) -> Axes:
        """Flattening of all but the images' dimension: a channel owns H W columns."""
        name, axes = self.first(step)
        shape, new = self.shapes[name], self.shapes[step.name]
        if not axes:
            return self.unknown(step)
        plain = short(step, self.net) in ("flatten", "Flatten")
        whole = new == (shape[0], math.prod(shape[1:]))
        if set(axes) == {1} and whole and (plain or step.args[2:] == (-1,)):
            block = math.prod(shape[2:])
            return {1: [unit for unit in axes[1] for _ in range(block)]}
        return self.unknown(step)

    def permute(self, step: Step) -> Axes:
        name, axes = self.first(step)
        rank = len(self.shapes[name])
        order = list(range(rank))
        given = [*step.args[1:], *step.kwargs.values()]
        dims = given[0] if isinstance(given[0], list | tuple) else given
        if step.target.endswith("transpose"):
            a, b = (d % rank for d in dims)
            order[a], order[b] = b, a
        else:
            order = [d % rank for d in dims]
        return {order.index(d): m for d, m in axes.items()}

    def cat(self, step: Step) -> Axes:
        """Channels one after the other; along other dimensions they are joined."""
        names = inputs_of(step)
        rank = len(self.shapes[step.name])
        dim = (argument(step, 1, "dim", "axis") or 0) % rank
        found: Axes = {}
        if any(dim in self.marks[name] for name in names):
            parts = [self.marks[n].get(dim, [FIXED] * self.shapes[n][dim]) for n in names]
            found[dim] = list(chain(*parts))
        for d in {d for name in names for d in self.marks[name]} - {dim}:
            found[d] = self.joined([self.marks[name].get(d) for name in names], step)
        return found

    def joined(self, several: Sequence[Marks | None], step: Step) -> Marks:
        given = [marks for marks in several if marks is not None]
        for other in given[1:]:
            self.units.join(given[0], other)
        if len(given) < len(several):
            self.units.freeze(given[0], f"'{step.name}' joins them with channels that stay")
        return given[0]

    def elementwise(self, step: Step) -> Axes:
        """Sums and products: channels at one position are one unit; size 1 is broadcast."""
        names = [name for name in inputs_of(step) if self.shapes[name] is not None]
        shape = self.shapes[step.name]
        if shape is None:
            return self.unknown(step)
        found: Axes = {}
        for d, size in enumerate(shape):
            given = {n: d - len(shape) + len(self.shapes[n]) for n in names}
            own = {n: at for n, at in given.items() if at >= 0 and self.shapes[n][at] == size}
            marked = [self.marks[n][at] for n, at in own.items() if at in self.marks[n]]
            for n in (n for n in own if n in self.held and (marked or size > 1)):
                self.member(self.held[n], own[n], marked[0] if marked else [FIXED] * size)
            if not marked:
                continue
            for other in marked[1:]:
                self.units.join(marked[0], other)
            for n, at in own.items():
                if n not in self.held and at not in self.marks[n] and size > 1:
                    self.units.freeze(marked[0], f"'{step.name}' joins them with fixed channels")
            found[d] = marked[0]
        return found


def channel_groups(layout: Layout, shapes: Mapping[str, Any]) -> ChannelGroups:
    """The groups of a network, in its order. shapes: of `supernets.trace.shapes_of`."""
    with torch.device("meta"):
        walk = Walk(layout, TracedNetwork(layout), shapes)
    owner = Numbering(walk)
    return ChannelGroups(
        owner.groups,
        [axis._replace(marks=owner.of(axis.marks)) for axis in walk.axes],
        [one._replace(marks=owner.of(one.marks)) for one in walk.arguments],
        [read._replace(marks=owner.of(read.marks)) for read in walk.reads],
        [
            Product(each, owner.of(inputs), owner.of(outputs))
            for each, inputs, outputs in walk.products
        ],
    )


class Numbering:
    """Units in groups: those that stand in the same axes, equally often, form one."""

    def __init__(self, walk: Walk):
        self.units, counts = walk.units, dict[int, dict[int, int]]()
        for a, axis in enumerate(walk.axes):
            for unit in axis.marks:
                if unit != FIXED:
                    found = counts.setdefault(self.units.root(unit), {})
                    found[a] = found.get(a, 0) + 1
        members: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for root, found in counts.items():
            members.setdefault(tuple(found.items()), []).append(root)
        self.number: dict[int, int] = {}
        self.groups: list[Group] = []
        for places, roots in members.items():
            start = len(self.number)
            self.number |= {root: start + i for i, root in enumerate(roots)}
            why = next((self.units.why[root] for root in roots if root in self.units.why), None)
            (first, count), units = places[0], range(start, start + len(roots))
            name = walk.axes[first].tensor.rpartition(".")[0]
            self.groups.append(Group(name, units, count, why))
        self._check_norms(walk.reads)

    def of(self, marks: Marks) -> Marks:
        """The same with numbers of units; a channel in no tensor stays."""
        return [u if u == FIXED else self.number.get(self.units.root(u), FIXED) for u in marks]

    def _check_norms(self, reads: Sequence[Read]) -> None:
        """Freezes groups under a norm that is not over one whole group, channel by channel."""
        for read in reads:
            present = set(self.of(read.marks)) if read.norm else set()
            for g, group in enumerate(self.groups):
                if present.intersection(group.units) and (
                    present != set(group.units) or len(read.marks) != len(present)
                ):
                    why = group.frozen or f"'{read.step}' normalises over several groups"
                    self.groups[g] = group._replace(frozen=why)
