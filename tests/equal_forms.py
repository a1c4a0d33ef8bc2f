"""Runs one net in the reference form and in another: everything that comes out of a pass."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces import darts, goldnas, nasbench201
from search_spaces.cells import Cell
from search_spaces.space import Space
from supernets.forms import use_form
from supernets.mixture import GroupMixture, Mixture, everything_active
from supernets.network import Network, supernet

CPU = torch.device("cpu")
Choose = Callable[[Cell], Sequence[Sequence[int]]]
SIZES = {"darts": dict(layers=3, nodes=2), "nasbench201": dict(layers=5, nodes=3)}
FAMILIES = {"darts": darts, "nasbench201": nasbench201, "goldnas": goldnas}
# Rounding in float64 grows through the batch norms of three to five cells.
TOLERANCE = 1e-9


def space_of(family: str, channels: int, candidates: list[str] | None = None) -> Space:
    module = FAMILIES[family]
    return getattr(module, family)(
        **SIZES.get(family, SIZES["darts"]),
        channels=channels,
        candidates=candidates or list(module.CANDIDATES),
        input_shape=(3, 9, 11),
        classes=4,
    )


def mixture_of(space: Space, alive: Callable[[Tensor], Tensor] = lambda t: t) -> Mixture:
    groups = {}
    for name, cell in space.groups.items():
        gates = torch.full((len(cell.edges), cell.width), 0.2, dtype=torch.float64)
        active = everything_active(alive(torch.ones(gates.shape, dtype=torch.bool)))
        groups[name] = GroupMixture(gates.requires_grad_(), None, active)
    return Mixture(groups)


def everything(cell: Cell) -> Sequence[Sequence[int]]:
    return [range(len(edge.names)) for edge in cell.edges]


def pruned(cell: Cell) -> Sequence[Sequence[int]]:
    """Another subset on every edge, one of them empty, many equal."""
    sizes = [len(edge.names) for edge in cell.edges]
    return [[o for o in range(n) if (e + o) % 4 != 1][: e % 3 * n] for e, n in enumerate(sizes)]


def drawn(cell: Cell) -> Sequence[Sequence[int]]:
    """One candidate an edge."""
    return [[(3 * e + 1) % len(edge.names)] for e, edge in enumerate(cell.edges)]


def outcome(
    net: Network, x: Tensor, choose: Choose, *, factors: bool, training: bool
) -> dict[str, Tensor]:
    """Logits, gradients by input, gates, factors and weights, and buffers after one pass."""
    net.train(training)
    found, leaves, groups = {}, {"x": x.clone().requires_grad_()}, {}
    generator = torch.Generator().manual_seed(1)

    def leaf(name: str, *shape: int) -> Tensor:
        values = torch.rand(*shape, generator=generator, dtype=torch.float64)
        leaves[name] = values.to(x.dtype).requires_grad_()
        return leaves[name]

    for name, cell in net.space.groups.items():
        gates = leaf(f"gates.{name}", len(cell.edges), cell.width)
        factor = leaf(f"factors.{name}", len(cell.edges)) if factors else None
        groups[name] = GroupMixture(gates, factor, choose(cell))
    logits = net(leaves["x"], Mixture(groups))
    leaves |= dict(net.named_parameters())
    weight = torch.randn(logits.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    gradients = torch.autograd.grad(
        (weight * logits).sum(), list(leaves.values()), materialize_grads=True
    )
    found = {"logits": logits.detach()} | dict(zip(leaves, gradients, strict=True))
    return found | {name: buffer.clone() for name, buffer in net.named_buffers()}


def assert_native_equal(
    space: Space, mixed_op: Callable[..., nn.Module], *, times: float = 4, **how: object
) -> None:
    """As near the reference in float64 as the reference in float32 is, so many times."""
    forms = ("native", "reference")
    found, measure = differences(space, mixed_op, forms, torch.float32, **how)
    rounding = max(measure.values())
    assert {n: d for n, d in found.items() if not d <= max(2e-5, times * rounding)} == {}


def differences(
    space: Space,
    mixed_op: Callable[..., nn.Module],
    forms: Sequence[str],
    dtype: torch.dtype,
    *,
    choose: Choose = everything,
    factors: bool = True,
    training: bool = True,
    batch: int = 3,
    affine: bool = False,
) -> list[dict[str, float]]:
    """For each form, the largest difference of each tensor to the reference in float64, relative to
    its largest value (gates and factors of all edges of a group count as one tensor)."""
    torch.manual_seed(0)
    net = supernet(space, mixed_op, affine=affine).double()
    for norm in (m for m in net.modules() if affine and isinstance(m, nn.BatchNorm2d)):
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(batch, *space.input_shape, dtype=torch.float64)
    expected = outcome(net, x, choose, factors=factors, training=training)
    largest = max(float(expected[name].abs().max()) for name in dict(net.named_parameters()))
    scales = {name: max(float(t.abs().max()), 1e-3 * largest) for name, t in expected.items()}
    differing = []
    net.to(dtype)
    for form in forms:
        for name, value in net.state_dict().items():
            value.copy_(start[name])  # a pass moves the statistics
        use_form(net, form, CPU)
        found = outcome(net, x.to(dtype), choose, factors=factors, training=training)
        assert list(found) == list(expected)
        assert all(found[name].shape == expected[name].shape for name in found)
        differing.append(
            {
                name: float((found[name].double() - t).abs().max()) / scales[name]
                for name, t in expected.items()
            }
        )
    return differing


def assert_equal(space: Space, mixed_op: Callable[..., nn.Module], **how: Any) -> None:
    """The fused form equals the reference in float64; `how` as `differences`."""
    (found,) = differences(space, mixed_op, ["fused"], torch.float64, **how)
    assert {name: value for name, value in found.items() if not value < TOLERANCE} == {}
