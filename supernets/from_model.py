"""Networks whose groups of channels are narrower: the supernet, the final network, the costs.

A group's gates mask its channels once, right before they are mixed (Wan et al. 2020,
arXiv:2004.05565), so that one-hot gates give the network without the others.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.architecture import Architecture
from search_spaces.from_model import WIDTH, FromModelSpace
from supernets.builder import Blueprint, Builder
from supernets.channel_cut import (
    Cost,
    Importance,
    cost_of,
    cut,
    kept_of,
    narrowed,
    order,
    parameter_products,
    widths_of,
)
from supernets.channel_groups import FIXED, ChannelGroups, Read, channel_groups
from supernets.entangled import check_mixed_op
from supernets.layout import channels_first
from supernets.mixture import GroupMixture, Mixture
from supernets.network import Logits, Network
from supernets.trace import shapes_of, tensor_of, trace
from supernets.traced import Layout, Step, TracedNetwork

Shape = tuple[int, int, int]
State = dict[str, Tensor]
TRANSFORMS = ("googlenet", "inception_v3")  # with `transform_input` where published weights are


class Described(NamedTuple):
    """A network as data. constants: tensors that no state dict holds. open: the groups that may be
    narrower, by their position."""

    layout: Layout
    constants: State
    found: ChannelGroups
    macs: Cost
    parameters: Cost
    open: list[int]


# -- the network that is given


def made(model: str, classes: int) -> nn.Module:
    """The network, with the weights that a function of yours returns. Raises ValueError for an
    unknown name, or a function that returns none."""
    with torch.device("cpu"):
        if ":" not in model:
            return _of_torchvision(model, classes)
        try:
            function = resolve_name(model)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"model: '{model}' cannot be imported ({error})") from error
        if isinstance(function, nn.Module) or not callable(function):
            raise ValueError(
                f"model: '{model}' is a {type(function).__name__}, expected a function that "
                "returns the network"
            )
        signature = inspect.signature(function)
        given = {"num_classes": classes} if "num_classes" in signature.parameters else {}
        try:
            signature.bind(**given)
        except TypeError as error:
            raise ValueError(
                f"model: '{model}' takes more than num_classes ({error}); write a function that "
                "gives the others"
            ) from error
        net = function(**given)
    if not isinstance(net, nn.Module):
        raise ValueError(f"model: '{model}' returns a {type(net).__name__}, expected a module")
    return net


def _of_torchvision(name: str, classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):  # others download parts
        raise ValueError(
            f"model: torchvision has no '{name}' that classifies images; for one of your own write "
            "module:function"
        )
    more = {"init_weights": False} if name in TRANSFORMS else {}
    try:
        net: nn.Module = models.get_model(name, weights=None, num_classes=classes, **more)
    except TypeError as error:
        raise ValueError(f"model: '{name}' is no classifier of images ({error})") from error
    return net


def weights_file(model: str, weights: str | None) -> Path | None:
    """The file with the trained weights; None where the model's function returns them.

    Raises ValueError if it is missing: nothing is downloaded.
    """
    path = None if weights is None else Path(weights)
    if path is None and ":" in model:
        return None
    if model in TRANSFORMS and path is None:
        raise ValueError(
            f"weights: the published ones of {model} expect images that it transforms by itself; "
            f"set model to module:function, your function that returns it with these weights"
        )
    if path is None:
        from torchvision.models import get_model_weights

        published: Any = get_model_weights(model)
        name = published.DEFAULT.url.rpartition("/")[2]
        path = Path(torch.hub.get_dir(), "checkpoints", name)
    if not path.is_file():
        raise ValueError(f"weights: no file {path}; give the state dict of your trained {model}")
    return path


def trained(space: FromModelSpace) -> State:
    """The weights of the network as it was trained, on the CPU. Raises ValueError for a file of
    another network."""
    model, layout = space.settings["model"], description(space).layout
    path = weights_file(model, space.settings["weights"])
    state = made(model, space.classes).state_dict() if path is None else read(path)
    state = {**description(space).constants, **state}
    with torch.device("meta"):
        wanted = TracedNetwork(layout).net.state_dict()
    for name, tensor in wanted.items():
        if name not in state or state[name].shape != tensor.shape:
            has = [*state[name].shape] if name in state else "nothing"
            first = next(iter(state), "nothing at all")
            more = "" if name in state else f" (its first tensor is '{first}')"
            raise ValueError(
                f"weights: {path or model} holds {has} for '{name}'{more}, expected "
                f"{[*tensor.shape]}; give the weights of this model, trained on these classes"
            )
    return {name: state[name].detach().cpu() for name in wanted}


def read(path: Path) -> State:
    """A state dict. Raises ValueError for a file that holds none."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights: {path} cannot be read as a state dict ({type(error).__name__}); write it "
            "with torch.save(net.state_dict(), path)"
        ) from error
    for key in ("state_dict", "model"):
        inner = found.get(key) if isinstance(found, Mapping) else None
        found = inner if isinstance(inner, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        has = [*found][:5] if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(
            f"weights: {path} holds no state dict but {has}; save that of the network alone, "
            "torch.save(net.state_dict(), path)"
        )
    return dict(found)


@lru_cache(maxsize=16)
def described(model: str, input_shape: Shape, classes: int) -> Described:
    """The network as data, with its groups and costs. Raises ValueError as `from_model`."""
    copies = 3 if input_shape[0] == 1 and ":" not in model else 1
    try:
        net = made(model, classes)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            layout = trace(net, copies=copies)
            shapes = shapes_of(layout, input_shape)
            constants = constants_of(net, layout)
            check_recorded(model, net, layout, constants, torch.Size((2, *input_shape)))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"model: {str(error).removeprefix('model: ')}") from error
    if shapes[layout["result"]] != (2, classes):
        raise ValueError(
            f"model: {model} returns {shapes[layout['result']]} for two images, expected (2, "
            f"{classes})"
        )
    found = channel_groups(layout, shapes)
    with torch.device("meta"):
        recorded = TracedNetwork(layout)
    sizes = {name: tuple(p.shape) for name, p in recorded.net.named_parameters()}
    macs = cost_of(found.products, found, _macs(recorded, input_shape))
    total = sum(p.numel() for p in recorded.parameters())
    parameters = cost_of(parameter_products(sizes, found), found, total)
    free = [g for g, group in enumerate(found.groups) if group.frozen is None]
    return Described(layout, constants, found, macs, parameters, free)


def constants_of(net: nn.Module, layout: Layout) -> State:
    """The tensors of a traced network that are in no state dict."""
    known = net.state_dict()
    return {name: tensor_of(net, name) for name in layout["buffers"] if name not in known}


@torch.no_grad()
def check_recorded(
    model: str, net: nn.Module, layout: Layout, constants: State, images: torch.Size
) -> None:
    """Raises ValueError if the steps give other logits than the network itself: hooks are not
    recorded, for example. A copy's weights are changed, so that none hides a part by being 0."""
    torch.manual_seed(0)
    net = copy.deepcopy(net).cpu().float()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.01)
    steps, x, logits = TracedNetwork(layout), torch.rand(images), list[Tensor]()
    state = {**constants, **net.state_dict()}
    steps.net.load_state_dict({name: state[name] for name in steps.net.state_dict()})
    for each, given in ((net, x.repeat(1, layout["copies"], 1, 1)), (steps, x.clone())):
        torch.manual_seed(0)
        logits.append(each.eval()(given))
    if not torch.allclose(logits[0], logits[1], rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError(
            f"model: {model} gives other logits than its steps as torch.fx records them; hooks, "
            "and what a forward does without torch's functions, are not recorded: leave them out"
        )


def _macs(net: TracedNetwork, input_shape: Shape) -> int:
    from supernets.costs import macs_of  # which imports networks

    return macs_of(net, (torch.empty(1, *input_shape, device="meta"),))


def offered(
    model: str, input_shape: Shape, classes: int, divisor: int, most: int
) -> list[list[int]]:
    """The widths of each row of the space. Raises ValueError as `from_model`."""
    told = described(model, input_shape, classes)
    rows = [row for _, row in _rows(told, divisor, most)]
    if not rows:
        whys = sorted({group.frozen or "few channels" for group in told.found.groups})
        raise ValueError(f"model: no channels of {model} can be cut: {'; '.join(whys)[:300]}")
    return rows


def _rows(told: Described, divisor: int, most: int) -> list[tuple[int, list[int]]]:
    """The groups with several options, and these."""
    groups = [(g, told.found.groups[g]) for g in told.open]
    rows = [(g, widths_of(len(one.units), one.channels, divisor, most)) for g, one in groups]
    return [(g, row) for g, row in rows if len(row) > 1]


def description(space: FromModelSpace) -> Described:
    """The network of a space as data; `open` are the groups of its rows."""
    own, shape = space.settings, cast(Shape, tuple(space.input_shape))
    return _opened(own["model"], shape, space.classes, own["divisor"], own["most"])


@lru_cache(maxsize=16)
def _opened(model: str, input_shape: Shape, classes: int, divisor: int, most: int) -> Described:
    told = described(model, input_shape, classes)
    return told._replace(open=[g for g, _ in _rows(told, divisor, most)])


# -- the supernet


class SuperTraced(Network, TracedNetwork):  # type: ignore[misc]  # a pass also takes a mixture
    """The network with a mask on the channels of each group. Batch norms stay in eval mode: they
    normalise as in the trained network, whatever the masks.

    rows, firsts (U,): of every unit, its row and the first option that keeps it; a unit that always
    stays has the row after the last.
    """

    rows: Tensor
    firsts: Tensor

    def __init__(self, space: FromModelSpace):
        told = description(space)
        TracedNetwork.__init__(self, told.layout)
        self.space: FromModelSpace = space
        self.auxiliary = None
        self.found, self.open, self.cost = told.found, told.open, told.macs
        self.costs: dict[tuple[torch.device, torch.dtype], tuple[Cost, Tensor, Tensor]] = {}
        units = sum(len(group.units) for group in told.found.groups)
        self.register_buffer("rows", torch.full((units + 1,), len(told.open)))
        self.register_buffer("firsts", torch.zeros(units + 1, dtype=torch.long))
        for r, g in enumerate(told.open):
            self.rows[told.found.groups[g].units.start : told.found.groups[g].units.stop] = r
        self.masked: dict[str, Read] = {}
        for i, read in enumerate(told.found.reads):
            known = {unit for unit in read.marks if unit != FIXED and self._is_open(unit)}
            if known:
                self.masked[read.step] = read
                marks = torch.tensor([units if u == FIXED else u for u in read.marks])
                self.register_buffer(f"_marks_{i}", marks, persistent=False)
        self.at = {read.step: f"_marks_{i}" for i, read in enumerate(told.found.reads)}

    def _is_open(self, unit: int) -> bool:
        return any(unit in self.found.groups[g].units for g in self.open)

    def inherit(self, state: State, importance: Importance) -> None:
        """Takes the trained weights and orders the channels by importance, once."""
        self.net.load_state_dict(state)
        ordered = order(state, self.found, importance)
        for r, g in enumerate(self.open):
            start, widths = self.found.groups[g].units.start, self.space.widths[r]
            for rank, unit in enumerate(ordered[g]):
                self.firsts[start + unit] = next(o for o, w in enumerate(widths) if rank < w)

    def train(self, mode: bool = True) -> "SuperTraced":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        assert mixture is not None
        self.gates = gates_of(mixture.groups[WIDTH], self.space.widths)
        above = self.gates.flip(1).cumsum(1).flip(1)  # (R, O): P(an option from this one on)
        above = torch.cat([above, above.new_ones(1, above.size(1))])
        self.kept = above[self.rows, self.firsts]  # (U + 1,)
        try:
            return TracedNetwork.forward(self, channels_first(x))
        finally:
            del self.gates, self.kept

    def run(self, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A step; where it mixes channels, they are masked by the chance that they are kept."""
        read = self.masked.get(step.name)
        if read is None:
            return super().run(step, args, kwargs)
        x, marks = args[0], getattr(self, self.at[step.name])
        if read.norm:
            return self.normalised(step, args, kwargs, marks)
        shape = [1] * x.dim()
        shape[read.dim] = -1
        mask = self.kept[marks].to(x.dtype).view(shape)
        return super().run(step, (x * mask, *args[1:]), kwargs)

    def normalised(
        self, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any], marks: Tensor
    ) -> Tensor:
        """A layer norm over the channels of one group: each option has its own mean and variance;
        of a channel, the mean over the options that keep it."""
        x, units = args[0], marks
        named = dict(zip(("weight", "bias", "eps"), args[2:5], strict=False)) | dict(kwargs)
        weight, bias, eps = named.get("weight"), named.get("bias"), named.get("eps", 1e-5)
        if step.kind == "module":
            module = self.net.get_submodule(step.target)
            weight, bias, eps = module.weight, module.bias, module.eps
        r = self.rows[units[0]]
        options = torch.arange(self.gates.size(1), device=x.device)
        keeps = (self.firsts[units] <= options[:, None]).to(x.dtype)  # (O, C)
        gates = self.gates.index_select(0, r[None])[0].to(x.dtype)
        total = keeps.sum(1)
        mean = x @ keeps.T / total  # (..., O)
        variance = (x.square() @ keeps.T / total - mean.square()).clamp_min(0)
        scale = gates * torch.rsqrt(variance + eps)
        y = x * (scale @ keeps) - (scale * mean) @ keeps
        y = y / self.kept[units].to(x.dtype).clamp_min(torch.finfo(x.dtype).tiny)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    def expected_macs(self, gates: Mapping[str, Tensor]) -> Tensor:
        """The exact mean of `supernets.costs.macs` over final networks whose rows are drawn
        independently."""
        given = gates[WIDTH]
        key = given.device, given.dtype
        if key not in self.costs:
            table = given.new_zeros(given.shape)
            for r, widths in enumerate(self.space.widths):
                table[r, : len(widths)] = torch.tensor(widths).to(given)
            full = torch.tensor([float(len(g.units)) for g in self.found.groups]).to(given)
            self.costs[key] = self.cost.to(given), table, full
        cost, table, full = self.costs[key]
        index = torch.tensor(self.open, device=given.device)
        mean = (given * table).sum(1)
        variance = (given * table.square()).sum(1) - mean.square()
        means = full.index_copy(0, index, mean)
        return cost.mean(means, torch.zeros_like(full).index_copy(0, index, variance))


def gates_of(group: GroupMixture, widths: Sequence[Sequence[int]]) -> Tensor:
    """The gates (R, O) of options that run, times the factors of rows; the others are 0."""
    gates = group.gates
    if any(len(row) < len(offered) for row, offered in zip(group.active, widths, strict=True)):
        runs = torch.zeros(gates.shape)
        for r, row in enumerate(group.active):
            runs[r, list(row)] = 1.0
        gates = gates * runs.to(gates)
    return gates if group.factors is None else gates * group.factors[:, None]


# -- final networks


class FinalTraced(Network, TracedNetwork):  # type: ignore[misc]
    """A final network with what searching and training add."""

    def __init__(self, space: FromModelSpace, layout: Layout):
        TracedNetwork.__init__(self, layout)
        self.space: FromModelSpace = space
        self.auxiliary = None

    def logits(self, x: Tensor, mixture: Mixture | None) -> Logits:
        return TracedNetwork.forward(self, channels_first(x))


class FromModel(Builder):
    """Builds supernets and final networks of a trained network."""

    def supernet(
        self, space: FromModelSpace, mixed_op: Callable[..., nn.Module], *, affine: bool
    ) -> SuperTraced:
        """It starts from the trained weights."""
        check_mixed_op(mixed_op, space)
        weights_file(space.settings["model"], space.settings["weights"])
        net = SuperTraced(space)
        if not net.firsts.is_meta:
            net.inherit(trained(space), space.settings["importance"])
        return net

    def final(
        self, space: FromModelSpace, architecture: Architecture, *, auxiliary: bool
    ) -> FinalTraced:
        if auxiliary:
            raise ValueError(
                f"auxiliary_weight: space {space.name} has no auxiliary head; set it to 0"
            )
        return FinalTraced(space, layout_of(space, architecture))

    def inherited(self, space: FromModelSpace, architecture: Architecture) -> State:
        """The trained weights of the channels that are kept."""
        told, state = description(space), trained(space)
        ordered = order(state, told.found, space.settings["importance"])
        kept = kept_of(ordered, widths(space, architecture))
        return {f"net.{name}": t for name, t in cut(state, told.found, kept).items()}

    def blueprint(self, space: FromModelSpace, architecture: Architecture) -> Blueprint:
        return Blueprint(TracedNetwork, layout_of(space, architecture))

    def counts(self, space: FromModelSpace, options: Mapping[str, Sequence[int]]) -> dict[str, int]:
        told, chosen = description(space), widths_at(space, options[WIDTH])
        return {"params": told.parameters.of(chosen), "macs": told.macs.of(chosen)}


def widths(space: FromModelSpace, architecture: Architecture) -> list[int]:
    """The width of every group, in units."""
    return widths_at(space, [o for (o,) in architecture.kept(space)[WIDTH]])


def widths_at(space: FromModelSpace, options: Sequence[int]) -> list[int]:
    """The same for the option of each row."""
    told = description(space)
    found = [len(group.units) for group in told.found.groups]
    for g, offered, option in zip(told.open, space.widths, options, strict=True):
        found[g] = offered[option]
    return found


def layout_of(space: FromModelSpace, architecture: Architecture) -> Layout:
    """An architecture's network as data."""
    told = description(space)
    return narrowed(told.layout, told.found, widths(space, architecture))
