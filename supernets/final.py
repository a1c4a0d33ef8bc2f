"""The final network in plain torch: an exported `model.py` is a copy of this text and what it uses.

A network is built from data. `supernets.network` derives what searching and training need besides.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

Constructor = Callable[..., nn.Module]
PassedOn = Callable[[int, Tensor], Iterable[tuple[int, Tensor]]]  # see `FinalCell.passed_on`


class CellLayout(TypedDict):
    """A cell: its first states are its inputs, each other state sums what its edges bring."""

    edges: Mapping[str, Sequence[str]]  # "source-target", two states -> names of operations
    strided: Sequence[str]  # the edges of stride 2
    outputs: Sequence[int]  # the states that make up its output


class LayerLayout(TypedDict):
    """A layer: a cell, or a residual block."""

    cell: str | None  # None: a residual block
    inputs: Sequence[tuple[int, int]]  # channels of each, and its side / the last one's side
    channels: int  # of a state
    stride: int


class Layout(TypedDict):
    """A network: stem, layers, head."""

    image_channels: int
    stem_channels: int
    cells: Mapping[str, CellLayout]
    layers: Sequence[LayerLayout]
    head_channels: int
    classes: int


class ChosenOps(nn.Module):
    """The operations on an edge, summed, with drop-path.

    Drop-path drops an operation's output for single images with probability `drop` and rescales the
    rest; a stride-1 identity is never dropped. Source: DARTS public code; Larsson et al. 2017,
    arXiv:1605.07648.
    """

    def __init__(self, constructors: Iterable[Constructor], c_in: int, c_out: int, stride: int):
        super().__init__()
        self.ops = nn.ModuleList(
            op(c_in, c_out, stride, affine=True, search=False) for op in constructors
        )
        self.drop: float | Tensor = 0.0  # a 0-dim tensor in passes that may be captured

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for op in self.ops:
            y, keep = op(x), self.keep(op, x)
            outputs.append(y if keep is None else y * keep.to(y.dtype))
        return sum(outputs[1:], outputs[0])

    def keep(self, op: nn.Module, x: Tensor) -> Tensor | None:
        """What drop-path multiplies an op's output by, drawn at each call: (B, 1, 1, 1); None
        where nothing is dropped."""
        if self.training and drops(self.drop) and not isinstance(op, nn.Identity):
            return self.kept(x) / (1.0 - self.drop)
        return None

    def kept(self, x: Tensor) -> Tensor:
        """For which images an op's output is kept, drawn at each call: (B, 1, 1, 1), 0 or 1."""
        return torch.empty(x.size(0), 1, 1, 1, device=x.device).bernoulli_(1.0 - self.drop)


def drops(probability: float | Tensor) -> bool:
    """Whether drop-path draws; a tensor's value is not read."""
    return isinstance(probability, Tensor) or probability > 0


class FinalCell(nn.Module):
    """A cell: each state is passed along its edges, to the states that sum what arrives.

    forward: inputs (B, C', H', W') each -> (B, len(outputs) * C, H/s, W/s).
    """

    def __init__(
        self,
        preprocess: Iterable[nn.Module],
        edges: Mapping[str, nn.Module],
        outputs: Sequence[int],
        channels: int,
        stride: int,
    ):
        super().__init__()
        self.outputs, self.channels, self.stride = outputs, channels, stride
        self.preprocess = nn.ModuleList(preprocess)
        self.edges = nn.ModuleDict(edges)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.joined(self.summed(self.preprocessed(inputs), self.passed_on))

    def preprocessed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The cell's inputs as its first states, (B, C, H, W) each."""
        return [pre(x) for pre, x in zip(self.preprocess, inputs, strict=True)]

    def passed_on(self, source: int, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """What the edges out of a state x bring to others: (target, (B, C, H/s, W/s)) each."""
        for name, edge in self.edges.items():
            start, target = map(int, name.split("-"))
            if start == source:
                yield target, edge(x)

    def summed(self, states: Sequence[Tensor], passed_on: PassedOn) -> list[Tensor]:
        """The states in `outputs`, (B, C, H/s, W/s) each, from the first ones."""
        found = dict(enumerate(states))
        for source in range(max(self.outputs)):
            if source not in found:  # nothing arrives; the batch norms behind it still shift
                found[source] = self.zeros(states[-1])
            for target, y in passed_on(source, found[source]):
                found[target] = found[target] + y if target in found else y
        return [found[i] if i in found else self.zeros(states[-1]) for i in self.outputs]

    def zeros(self, x: Tensor) -> Tensor:
        h, w = (-(-side // self.stride) for side in x.shape[2:])
        return x.new_zeros(x.size(0), self.channels, h, w)

    def joined(self, outputs: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(outputs), 1) if len(outputs) > 1 else outputs[0]


class FinalNetwork(nn.Module):
    """Stem, layers, head: images (B, C, H, W) -> logits (B, classes).

    Args:
        operations: a name in the layout -> its constructor `op(c_in, c_out, stride, *, affine,
            search)`. `affine`: whether batch norms have scale and shift; `search`: False here.
        stem: (image channels, channels) -> its two parts, whose outputs enter the first cell.
        head: (channels, classes) -> the last layers.
        preprocess: (c_in, c_out, stride) -> what a cell does to an input.
        block: (c_in, c_out) -> a layer that is no cell.
        edge: (constructors, c_in, c_out, stride) -> what stands on an edge.
        cell: the constructor of a cell, with the arguments of `FinalCell`.
    """

    def __init__(
        self,
        layout: Layout,
        operations: Mapping[str, Constructor],
        *,
        stem: Callable[[int, int], tuple[nn.Module, nn.Module]],
        head: Constructor,
        preprocess: Constructor = nn.Identity,
        block: Constructor | None = None,
        edge: Constructor = ChosenOps,
        cell: Callable[..., FinalCell] = FinalCell,
    ):
        super().__init__()
        self.stem, self.stem_second = stem(layout["image_channels"], layout["stem_channels"])
        self.layers = nn.ModuleList()
        for layer in layout["layers"]:
            inputs, channels = layer["inputs"], layer["channels"]
            if layer["cell"] is None:
                assert block is not None
                self.layers.append(block(inputs[0][0], channels))
                continue
            plan = layout["cells"][layer["cell"]]
            fitted = [preprocess(c, channels, stride) for c, stride in inputs]
            edges = {}
            for name, kept in plan["edges"].items():
                source = int(name.split("-")[0])
                plain = preprocess is nn.Identity and source < len(inputs)
                c_in = inputs[source][0] if plain else channels
                stride = 2 if name in plan["strided"] else 1
                edges[name] = edge([operations[op] for op in kept], c_in, channels, stride)
            self.layers.append(cell(fitted, edges, plan["outputs"], channels, layer["stride"]))
        self.head = head(layout["head_channels"], layout["classes"])

    def forward(self, x: Tensor) -> Tensor:
        before = self.stem(x)
        last = self.stem_second(before)
        for layer in self.layers:
            inputs = [before, last]
            before = last
            if isinstance(layer, FinalCell):
                last = layer(inputs[-len(layer.preprocess) :])
            else:
                last = layer(last)
        return self.head(last)

    def set_drop_path(self, probability: float | Tensor) -> None:
        """The chance that an operation's output is dropped for an image, from now on."""
        for module in self.modules():
            if isinstance(module, ChosenOps):
                module.drop = probability
