from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.darts import CANDIDATES
from search_spaces.nasbench201 import CANDIDATES as NB201
from supernets.entangled_op import EntangledOp
from supernets.mixed_op import MixedOp

NAMES = ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "skip_connect"]


def made(names: list[str] = NAMES, *, stride: int = 1, affine: bool = False) -> EntangledOp:
    torch.manual_seed(0)
    ops = [CANDIDATES[name] for name in names]
    return EntangledOp(ops, 4, 4, stride, affine=affine).double()


def copied(op: nn.Module, entangled: nn.Module) -> nn.Module:
    """The op with the centres of the entangled weights, layer by layer."""
    with torch.no_grad():
        for own, full in zip(op.parameters(), entangled.parameters(), strict=True):
            edge = (full.size(-1) - own.size(-1)) // 2 if own.dim() == 4 else 0
            inner = slice(edge, full.size(-1) - edge) if edge else slice(None)
            own.copy_(full[..., inner, inner] if edge else full)
    return op


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("runs_alone", [True, False])
@pytest.mark.parametrize("o", range(5))
def test_one_option_is_its_candidate_with_the_centres_of_the_weights(
    o: int, runs_alone: bool, stride: int
):
    mixed, x = made(stride=stride), torch.randn(3, 4, 9, 8).double()
    op = CANDIDATES[NAMES[o]](4, 4, stride, affine=False, search=True).double()
    kind = mixed.kinds.index(next(k for k in mixed.kinds if o in k))
    copied(op, mixed.parts[kind])
    gates = F.one_hot(torch.tensor(o), 5).double()
    found = mixed(x, gates, [o] if runs_alone else list(range(5)))
    torch.testing.assert_close(found, op(x), rtol=0, atol=1e-12)


def test_kinds_share_weights():
    mixed = made()
    assert mixed.kinds == [[0, 1], [2, 3], [4]]
    largest = MixedOp([CANDIDATES[n] for n in NAMES if "3x3" not in n], 4, 4, 1)
    assert sum(p.numel() for p in mixed.parameters()) == sum(
        p.numel() for p in largest.parameters()
    )
    nb201 = EntangledOp([*NB201.values()], 4, 4, 1)
    assert nb201.kinds == [[0], [1], [2, 3], [4]]


def test_entangled_12_kinds_are_compared_behind_their_norms():
    """The alphas of a kind get a gradient in common; with gates on the kernels alone it is 0."""
    mixed, x = made(NAMES[:4]), torch.randn(8, 4, 6, 6).double()
    for layer in mixed.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-14
    alphas = torch.tensor([0.1, -0.2, 0.3, 0.0]).double().requires_grad_()
    weights = torch.randn(8, 4, 6, 6).double()
    (mixed(x, alphas.softmax(0), range(4)) * weights).sum().backward()
    assert abs(alphas.grad[:2].sum().item()) > 1e-3
    assert alphas.grad.sum().item() == pytest.approx(0.0, abs=1e-8)

    def as_coded(gates: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for options, part in zip(mixed.kinds, mixed.parts, strict=True):
            own = gates[options]
            total = total + part(x, own, [0, 1]) / own.sum()  # what a norm leaves of the mass
        return total

    alphas.grad = None
    (as_coded(alphas.softmax(0)) * weights).sum().backward()
    assert alphas.grad[:2].sum().item() == pytest.approx(0.0, abs=1e-8)
    assert alphas.grad[2:].sum().item() == pytest.approx(0.0, abs=1e-8)


def test_a_mixture_of_one_kind_is_the_op_of_the_superposed_kernels():
    """Gates (0.15, 0.35) of a kind: shares 0.3 and 0.7, mass 0.5."""
    mixed, x = made(["dil_conv_3x3", "dil_conv_5x5"]), torch.randn(2, 4, 7, 7).double()
    op = partial(CANDIDATES["dil_conv_5x5"], affine=False, search=True)(4, 4, 1).double()
    copied(op, mixed)
    with torch.no_grad():
        kernel = op[1].weight
        rim = torch.full((5, 5), 0.7).double()
        rim[1:4, 1:4] = 1.0
        kernel.mul_(rim)
    found = mixed(x, torch.tensor([0.15, 0.35]).double(), [0, 1])
    torch.testing.assert_close(found, 0.5 * op(x), rtol=0, atol=1e-12)


def test_nothing_runs_and_a_single_option():
    assert made()(torch.randn(1, 4, 5, 5).double(), torch.rand(5).double(), []) is None
    alone, x = made(["sep_conv_3x3"]), torch.randn(2, 4, 5, 5).double()
    assert alone(x, torch.ones(1).double(), [0]).shape == x.shape


def test_candidates_without_siblings_are_refused():
    with pytest.raises(ValueError, match=r"no two differ in their kernels alone.*mixed_op=full"):
        made(["sep_conv_3x3", "dil_conv_5x5", "skip_connect"])
