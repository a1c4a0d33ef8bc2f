"""Records a network as the steps of `supernets.traced`, by torch.fx, in eval mode."""

import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import _get_qualified_name

from supernets.traced import IMAGES, Layout, Step, TracedNetwork, function_of

KINDS = {"call_module": "module", "call_function": "function", "call_method": "method"}
BATCH = 2  # images that shapes are of
SKIPPED = ("stochastic_depth",)  # functions that do nothing in eval mode


class _Tracer(fx.Tracer):
    """Goes into all modules but torch's own, which have no parts or are attentions. Buffers are
    read when the network runs, and inputs besides the images have their defaults."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = type(m).__module__.startswith("torch.nn")
        whole = not list(m.children()) or isinstance(m, nn.MultiheadAttention)
        return (own and whole) or _skipped(m)

    def create_proxy(self, kind: str, target: Any, args: Any, *more: Any, **named: Any) -> Any:
        if kind == "placeholder" and args:
            return args[0]
        return super().create_proxy(kind, target, args, *more, **named)


def _skipped(module: nn.Module) -> bool:
    """Whether it is torchvision's stochastic depth; one of the user's may do something in eval."""
    own = type(module).__module__.startswith("torchvision.")
    return own and type(module).__name__ == "StochasticDepth"


def trace(net: nn.Module, *, copies: int = 1) -> Layout:
    """The steps of a network. copies: of the channels of its images.

    Raises ValueError, with a reason, for a network that torch.fx cannot trace, or that is made of
    more than torch's functions and modules.
    """
    training = net.training
    net.eval()
    try:
        graph = _Tracer().trace(net)
        whole = fx.GraphModule(net, graph)  # what is unused is found by its modules
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise ValueError(f"torch.fx cannot trace {type(net).__name__} ({said})") from error
    finally:
        net.train(training)
    graph = whole.graph
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and node.target is torch._assert:
            graph.erase_node(node)
        elif not node.args and "input" in node.kwargs:  # the place where steps look for it
            node.args = (node.kwargs["input"],)
            node.kwargs = {key: v for key, v in node.kwargs.items() if key != "input"}
    graph.eliminate_dead_code(lambda node: node.is_impure() or _in_place(net, node))
    return _layout(net, graph, copies)


def _in_place(net: nn.Module, node: fx.Node) -> bool:
    """Whether a call changes its input, so that it counts although nothing reads its result."""
    if node.op == "call_module":
        return bool(getattr(net.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    return name.endswith("_") or bool(node.kwargs.get("inplace"))


def _layout(net: nn.Module, graph: fx.Graph, copies: int) -> Layout:
    modules: dict[str, tuple[str, Mapping[str, Any]]] = {}
    parameters: dict[str, list[int]] = {}
    buffers: dict[str, list[int]] = {}
    types: dict[str, str] = {}
    steps, alias, result = list[Step](), dict[str, Any](), ""
    for node in graph.nodes:
        if node.op == "placeholder":
            if not alias:
                alias[node.name] = {"of": IMAGES}
        elif node.op == "output":
            written = _written(node.args[0], alias)
            if not isinstance(written, dict) or "of" not in written:
                raise ValueError(f"{type(net).__name__} returns no single tensor of logits")
            result = written["of"]
        elif _does_nothing(net, node):
            alias[node.name] = alias[node.args[0].name]
        else:
            steps.append(_step(node, alias))
            alias[node.name] = {"of": node.name}
            if node.op == "call_module":
                if node.target not in modules:
                    modules[node.target] = _rebuilt(node.target, net.get_submodule(node.target))
                if _in_place(net, node):  # layers are built without it: what it changes, follows
                    old = alias[node.args[0].name]
                    alias = {n: {"of": node.name} if to == old else to for n, to in alias.items()}
            elif node.op == "get_attr":
                held = tensor_of(net, node.target)
                learns = isinstance(held, nn.Parameter) and held.requires_grad
                (parameters if learns else buffers)[node.target] = list(held.shape)
                if not held.is_floating_point():
                    types[node.target] = str(held.dtype).removeprefix("torch.")
    return {
        "modules": modules, "parameters": parameters, "buffers": buffers, "types": types,
        "copies": copies, "steps": [tuple(step) for step in steps], "result": result,
    }  # fmt: skip


def _does_nothing(net: nn.Module, node: fx.Node) -> bool:
    """Whether a call returns its input in eval mode: Identity, stochastic depth."""
    if node.op == "call_module":
        module = net.get_submodule(str(node.target))
        return type(module) is nn.Identity or _skipped(module)
    name = getattr(node.target, "__name__", "")
    off = name == "dropout" and (node.kwargs.get("training") is False or False in node.args[2:3])
    return node.op == "call_function" and (name in SKIPPED or off)


def _step(node: fx.Node, alias: Mapping[str, Any]) -> Step:
    kind = KINDS.get(node.op, "tensor")
    target = str(node.target)
    if not isinstance(node.target, str):
        target = _get_qualified_name(node.target)
        function_of(target)
    args = tuple(_written(arg, alias) for arg in node.args)
    kwargs = {key: _written(value, alias) for key, value in node.kwargs.items()}
    return Step(node.name, kind, target, args, kwargs)


def _written(value: Any, alias: Mapping[str, Any]) -> Any:
    """An argument as a literal, see `Step`. Raises ValueError for what has none."""
    match value:
        case fx.Node():
            if value.name not in alias:
                raise ValueError(f"its forward also takes '{value.name}'; it gets images alone")
            return alias[value.name]
        case tuple():
            return tuple(_written(part, alias) for part in value)
        case list():
            return [_written(part, alias) for part in value]
        case slice():
            return {"slice": [_written(v, alias) for v in (value.start, value.stop, value.step)]}
        case torch.dtype():
            return {"dtype": str(value).removeprefix("torch.")}
        case None | bool() | int() | float() | str():
            return value
    if value is ...:
        return {"all": True}
    raise ValueError(f"an argument of type {type(value).__name__} cannot be stored")


def tensor_of(net: nn.Module, path: str) -> Tensor:
    """A parameter, buffer or other tensor that a module holds."""
    *folders, last = path.split(".")
    held = getattr(net.get_submodule(".".join(folders)), last)
    if not isinstance(held, Tensor):
        raise ValueError(f"'{path}' is no tensor")
    return held


def _rebuilt(path: str, module: nn.Module) -> tuple[str, dict[str, Any]]:
    """The class of a module and its arguments, which its attributes repeat."""
    kind, names = type(module).__name__, dict(module.named_parameters())
    if getattr(nn, kind, None) is not type(module):
        raise ValueError(f"layer {path} is a {kind}, which is no class of torch.nn; replace it")
    found: dict[str, Any] = {}
    for name in inspect.signature(type(module).__init__).parameters:
        if name == "bias":
            found[name] = any(each.endswith("bias") for each in names)
        elif name not in ("self", "device", "dtype", "inplace") and hasattr(module, name):
            value = getattr(module, name)
            found[name] = _plain(value)
    built: nn.Module | None = None
    with suppress(TypeError, ValueError), torch.device("meta"):
        built = getattr(nn, kind)(**found)
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if built is None or wanted != {n: t.shape for n, t in built.state_dict().items()}:
        raise ValueError(
            f"layer {path}, a {kind}, cannot be built again from its attributes; if its weight is "
            "normalised or pruned, remove that first"
        )
    return kind, found


def _plain(value: Any) -> Any:
    """A number of numpy as one of Python, also within a tuple."""
    if isinstance(value, tuple):
        return tuple(_plain(part) for part in value)
    return value.item() if hasattr(value, "dtype") and not isinstance(value, Tensor) else value


def shapes_of(layout: Layout, input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Name -> the shape of each result for two images, None for other than tensors; computed
    without memory. Raises ValueError for images that do not fit."""
    shapes: dict[str, Any] = {}

    class Recorder(TracedNetwork):
        def run(self, step: Step, args: Any, kwargs: Any) -> Any:
            result = super().run(step, args, kwargs)
            shapes[step.name] = tuple(result.shape) if isinstance(result, Tensor) else None
            return result

    try:
        with torch.device("meta"), torch.no_grad():
            C, H, W = input_shape
            shapes[IMAGES] = (BATCH, C * layout["copies"], H, W)
            Recorder(layout).eval()(torch.empty(BATCH, *input_shape))
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        said = " ".join(str(error).split())[:160]
        raise ValueError(f"it does not take images of {[*input_shape]} ({said})") from error
    return shapes
