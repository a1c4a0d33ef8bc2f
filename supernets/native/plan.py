"""Passes over the edges of a cell as one differentiable operation of the native kernels.

Edges add to their target where it lies, so that states are written once and their sums cost
nothing. The states, the batch norms' moments and what a source `keeps` stay for the backward pass,
which computes everything between anew. Float32 on the CPU; first derivatives only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernets.native.interface import first_derivative_only
from supernets.native.source import Given, Gradients, Source, split


@dataclass(frozen=True)
class Step:
    """A source, the state that it reads, and the state that each of its edges adds to."""

    source: Source
    state: int
    targets: Sequence[int]


class Plan:
    """Steps in an order in which every state is complete before it is read.

    The first `inputs` states are given; `outputs` names the states that are wanted. The edges of a
    step have different targets.
    """

    def __init__(self, steps: Sequence[Step], inputs: int, outputs: Sequence[int]):
        assert all(len(set(step.targets)) == len(step.targets) for step in steps)
        self.steps, self.inputs, self.outputs = steps, inputs, outputs
        self.states = 1 + max(target for step in steps for target in step.targets)
        self.read = {step.state for step in steps}
        self.partial = any(step.source.k > 1 for step in steps)
        self.kinds = [len(step.source.kinds) for step in steps]
        self.gates = [len(step.source.kinds) * step.source.edges for step in steps]
        self.edges = [step.source.edges for step in steps]
        self.parameters = [
            n for s in steps for n in (len(s.source.shapes), sum(s.source.shift_counts))
        ]

    def __call__(
        self,
        states: Sequence[Tensor],
        gates: Tensor,
        factors: Tensor | None = None,
        keeps: Sequence[Tensor | None] | None = None,
    ) -> list[Tensor]:
        """The outputs, (B, C, H/s, W/s) each.

        `states` (B, C, H, W) each; of the steps one after the other `gates` (kinds * E,), kind by
        kind, and `factors` (E,); per step `keeps` (B, E) of drop-path.
        """
        sources = [step.source for step in self.steps]
        parameters = [t for s in sources for t in (*contiguous(s.weights), *s.shifts)]
        if factors is None and self.partial:
            factors = gates.new_ones(sum(self.edges))
        keeps = keeps or [None] * len(self.steps)
        return list(PlanFunction.apply(self, keeps, gates, factors, *states, *parameters))


def contiguous(weights: Sequence[Tensor]) -> list[Tensor]:
    """The weights, copied where their numbers do not lie one after the other."""
    return [w if w.is_contiguous() else w.contiguous() for w in weights]


@dataclass(frozen=True)
class Pass:
    """A step with what belongs to it of all that a plan takes."""

    step: Step
    training: bool
    moments: Tensor
    gates: Tensor
    factors: Tensor | None
    keep: Tensor | None
    weights: Sequence[Tensor]
    shifts: Sequence[Tensor]
    kept: list[Tensor | None]  # per kind; a forward pass for gradients fills it

    def given(self, x: Tensor) -> Given:
        affine = self.step.source.affine(self.shifts, self.moments, training=self.training)
        return Given(
            x, self.training, self.gates, self.factors, self.keep, self.moments, affine,
            self.weights, self.kept,
        )  # fmt: skip

    def forward(self, states: list[Any], *, for_gradients: bool) -> None:
        """Adds to the states of the targets, which begin as None."""
        source, x, targets = self.step.source, states[self.step.state], self.step.targets
        adds = [states[target] is not None for target in targets]
        for target in targets:
            if states[target] is None:
                states[target] = new_state(x, source.stride)
        if for_gradients:
            self.kept[:] = source.kept(x)
        source.forward(self.given(x), [states[target] for target in targets], adds)
        source.record(self.moments)

    def backward(
        self, x: Tensor, d: list[Any], gates: Tensor, factors: Tensor, *, wanted: bool
    ) -> list[Tensor | None]:
        """Adds to the gradient of the state x, and writes those of `gates` and `factors`; returns
        those of weights (None unless `wanted`) and shifts. `d` holds the states' gradients."""
        source, state = self.step.source, self.step.state
        for target in self.step.targets:
            if d[target] is None:
                d[target] = new_state(x, source.stride).zero_()
        adds = d[state] is not None
        if not adds:
            d[state] = torch.empty_like(x)
        given = self.given(x)
        weights = x.new_empty(sum(source.floats)) if wanted else None
        affine = [None if t is None else torch.empty_like(t) for t in given.affine]
        to = Gradients(d[state], adds, gates, factors, weights, affine)
        source.backward(given, [d[target] for target in self.step.targets], to)
        shifts = source.shift_gradients(affine, self.shifts, self.moments, training=self.training)
        return [*by_weight(weights, self.weights), *shifts]


def passes(
    plan: Plan,
    training: Sequence[bool],
    moments: Sequence[Tensor],
    gates: Tensor,
    factors: Tensor | None,
    keeps: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    kept: Sequence[Tensor | None],
) -> list[Pass]:
    own = split(parameters, plan.parameters)
    of_edges = [None] * len(plan.steps) if factors is None else factors.split(plan.edges)
    of_steps = training, moments, gates.split(plan.gates), of_edges, keeps, own[::2], own[1::2]
    return [*map(Pass, plan.steps, *of_steps, split(kept, plan.kinds))]


class PlanFunction(torch.autograd.Function):
    """Adds sum_o g_eo op_eo(x) to its target for every edge e."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        keeps: Sequence[Tensor | None],
        gates: Tensor,
        factors: Tensor | None,
        *tensors: Tensor,
    ) -> Any:
        parameters = tensors[plan.inputs :]
        states: list[Any] = [*tensors[: plan.inputs], *[None] * (plan.states - plan.inputs)]
        ctx.plan, ctx.training = plan, [step.source.training for step in plan.steps]
        moments = [step.source.moments(tensors[0]) for step in plan.steps]
        none = [None] * sum(plan.kinds)
        own = passes(plan, ctx.training, moments, gates, factors, keeps, parameters, none)
        for one in own:
            one.forward(states, for_gradients=any(ctx.needs_input_grad))
        kept = [t for one in own for t in one.kept]
        read = [x if i in plan.read else None for i, x in enumerate(states)]
        ctx.save_for_backward(*read, *moments, *keeps, gates, factors, *parameters, *kept)
        return tuple(states[i] for i in plan.outputs)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        first_derivative_only()
        plan: Plan = ctx.plan
        n = len(plan.steps)
        states, moments, keeps, (gates, factors), parameters, kept = split(
            ctx.saved_tensors, [plan.states, n, n, 2, sum(plan.parameters), sum(plan.kinds)]
        )
        d: list[Any] = [None] * plan.states
        for i, gradient in zip(plan.outputs, dy, strict=True):
            d[i] = own_gradient(gradient, written=i in plan.read)
        d_gates, d_factors = torch.empty_like(gates), gates.new_empty(sum(plan.edges))
        to = d_gates.split(plan.gates), d_factors.split(plan.edges)
        wanted = split(ctx.needs_input_grad[4 + plan.inputs :], plan.parameters)[::2]
        own = passes(plan, ctx.training, moments, gates, factors, keeps, parameters, kept)
        found: list[Tensor | None] = []
        for one, g, f, w in reversed([*zip(own, *to, wanted, strict=True)]):
            found = [*one.backward(states[one.step.state], d, g, f, wanted=any(w)), *found]
        return (
            None,
            None,
            d_gates,
            None if factors is None else d_factors,
            *d[: plan.inputs],
            *found,
        )


def new_state(x: Tensor, stride: int) -> Tensor:
    """Memory for what edges out of x (B, C, H, W) add to: (B, C, H/s, W/s), channels last."""
    B, C, H, W = x.shape
    return x.new_empty(B, -(-H // stride), -(-W // stride), C).permute(0, 3, 1, 2)


def own_gradient(gradient: Tensor, *, written: bool) -> Tensor:
    """The gradient with channels last; a copy where it is to be `written` to."""
    if written or not gradient.is_contiguous(memory_format=torch.channels_last):
        return torch.empty_like(gradient, memory_format=torch.channels_last).copy_(gradient)
    return gradient


def by_weight(memory: Tensor | None, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """What of the memory belongs to each weight, in its shape."""
    if memory is None:
        return [None] * len(weights)
    own = memory.split([w.numel() for w in weights])
    return [t.view(w.shape) for t, w in zip(own, weights, strict=True)]
