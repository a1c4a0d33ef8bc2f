"""Checkpointed cells give the same pass: outputs, gradients, statistics counted once."""

import copy

import pytest
import torch
from equal_forms import CPU, everything, outcome
from torch.func import functional_call

from search_spaces.darts import CANDIDATES, darts
from supernets.forms import use_form
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.native import build
from supernets.network import supernet

SPACE = darts(
    layers=3, nodes=1, channels=4, candidates=list(CANDIDATES), input_shape=(3, 8, 8), classes=3
)
FORMS = ["reference", "fused", *(["native"] if build.compiler() else [])]


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpointed_pass_is_the_same_pass(form: str):
    net = supernet(SPACE, MixedOp)
    use_form(net, form, CPU)
    other = copy.deepcopy(net)
    other.checkpoint_cells = True
    x = torch.randn(3, 3, 8, 8)
    expected = outcome(net, x, everything, factors=True, training=True)
    found = outcome(other, x, everything, factors=True, training=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_second_pass_runs_on_replaced_weights():
    net = supernet(SPACE, MixedOp)
    weights = {n: torch.randn_like(p).requires_grad_() for n, p in net.named_parameters()}
    x, found = torch.randn(3, 3, 8, 8), []
    for checkpoint in (False, True):
        net.checkpoint_cells = checkpoint
        gates = {n: torch.full((len(c.edges), 8), 0.1) for n, c in SPACE.groups.items()}
        mixture = Mixture({n: GroupMixture(g, None, [range(8)] * len(g)) for n, g in gates.items()})
        loss = functional_call(net, weights, (x, mixture)).pow(2).sum()
        found.append(torch.autograd.grad(loss, list(weights.values())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
