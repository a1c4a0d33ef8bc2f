"""A network as its recorded steps, in plain torch: what an export of any traced network runs."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

IMAGES = "images"  # the name of the input
ROOTS = {"torch": torch, "_operator": operator, "math": math, "getattr": getattr}


class Step(NamedTuple):
    """One call. name: of its result. kind: `module`, `function`, `method`, or `tensor` (a parameter
    or buffer). target: the module's path, the function, the method, or the tensor's path.

    args, kwargs: `{"of": name}` stands for an earlier result, `{"slice": [...]}` for a slice,
    `{"dtype": name}` for a type, and `{"all": True}` for an ellipsis.
    """

    name: str
    kind: str
    target: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class Layout(TypedDict):
    """A network. modules: path -> class in `torch.nn`, and its arguments. parameters, buffers: path
    -> shape, of those that steps read by themselves. types: path -> type, of those that are no
    floating point. copies: how often channels of the images are repeated. result: the name of the
    logits."""

    modules: Mapping[str, tuple[str, Mapping[str, Any]]]
    parameters: Mapping[str, Sequence[int]]
    buffers: Mapping[str, Sequence[int]]
    types: Mapping[str, str]
    copies: int
    steps: Sequence[Sequence[Any]]
    result: str


def function_of(name: str) -> Any:
    """A function by its dotted name. Raises ValueError for one outside torch, operator and math."""
    first, *rest = name.split(".")
    found = ROOTS.get(first)
    for part in rest:
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{name} is no function of torch")
    return found


def filled(value: Any, results: Mapping[str, Any]) -> Any:
    """Arguments of a step, with results in the place of their names."""
    if isinstance(value, Mapping):
        ((kind, inner),) = value.items()
        if kind == "of":
            return results[inner]
        if kind == "slice":
            return slice(*(filled(part, results) for part in inner))
        return getattr(torch, inner) if kind == "dtype" else ...
    if isinstance(value, tuple | list):
        return type(value)(filled(part, results) for part in value)
    return value


def names_in(value: Any) -> list[str]:
    """The names of the results that arguments contain."""
    if isinstance(value, Mapping):
        value = [inner for kind, inner in value.items() if kind == "slice"] or (
            [name for kind, name in value.items() if kind == "of"]
        )
        return [n for part in value for n in ([part] if isinstance(part, str) else names_in(part))]
    if isinstance(value, tuple | list):
        return [name for part in value for name in names_in(part)]
    return []


def place(root: nn.Module, path: str, thing: nn.Module | nn.Parameter | Tensor) -> None:
    """Puts a module, parameter or buffer at its path below a module."""
    *folders, last = path.split(".")
    for name in folders:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    if isinstance(thing, nn.Module):
        root.add_module(last, thing)
    elif isinstance(thing, nn.Parameter):
        root.register_parameter(last, thing)
    else:
        root.register_buffer(last, thing)


class TracedNetwork(nn.Module):
    """The network of a layout, untrained: images (B, C, H, W) -> logits (B, classes).

    `net` holds its modules and tensors at their paths.
    """

    def __init__(self, layout: Layout):
        super().__init__()
        self.copies, self.last = layout["copies"], layout["result"]
        self.net = nn.Module()  # has the names of the original, which may be any
        for path, (kind, arguments) in layout["modules"].items():
            place(self.net, path, getattr(nn, kind)(**arguments))
        for path, shape in layout["parameters"].items():
            place(self.net, path, nn.Parameter(torch.zeros(shape)))
        for path, shape in layout["buffers"].items():
            kind = getattr(torch, layout["types"].get(path, "float32"))
            place(self.net, path, torch.zeros(shape, dtype=kind))
        self.steps = [Step(*step) for step in layout["steps"]]
        self.read_by = {name: i for i, s in enumerate(self.steps) for name in inputs_of(s)}

    def forward(self, x: Tensor) -> Tensor:
        results = {IMAGES: x.repeat(1, self.copies, 1, 1) if self.copies > 1 else x}
        for i, step in enumerate(self.steps):
            args, kwargs = filled(step.args, results), filled_by_name(step.kwargs, results)
            results[step.name] = self.run(step, args, kwargs)
            for name in inputs_of(step):
                if self.read_by[name] == i and name != self.last:
                    results.pop(name, None)
        logits: Tensor = results[self.last]
        return logits

    def run(self, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a step on its inputs."""
        if step.kind == "module":
            return self.net.get_submodule(step.target)(*args, **kwargs)
        if step.kind == "tensor":
            *folders, last = step.target.split(".")
            return getattr(self.net.get_submodule(".".join(folders)), last)
        if step.kind == "method":
            return getattr(args[0], step.target)(*args[1:], **kwargs)
        return function_of(step.target)(*args, **kwargs)


def filled_by_name(kwargs: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: filled(value, results) for key, value in kwargs.items()}


def inputs_of(step: Step) -> list[str]:
    """The names of the results that a step reads."""
    return names_in([*step.args, *step.kwargs.values()])
