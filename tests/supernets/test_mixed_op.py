"""Mixed ops by numbers; PC-DARTS sheet, tests 1 to 4."""

import pytest
import torch
from torch import Tensor, nn

from search_spaces.darts import CANDIDATES
from supernets.final import ChosenOps
from supernets.mixed_op import MixedOp, PartialMixedOp

ALL = list(CANDIDATES.values())
EVERY = list(range(8))


class Times(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def times(factor: float):
    return lambda c_in, c_out, stride, *, affine, search: Times(factor)


def test_candidates_are_summed_by_their_gates():
    op = MixedOp([times(1.0), times(10.0), times(100.0)], 2, 2, 1)
    x = torch.ones(1, 2, 1, 1)
    assert op(x, torch.tensor([0.5, 0.2, 0.3]), [0, 1, 2]).flatten().tolist() == pytest.approx(
        [32.5, 32.5]
    )
    assert op(x, torch.tensor([0.5, 0.2, 0.3]), [1]).flatten().tolist() == [2.0, 2.0]
    assert op(x, torch.tensor([0.5, 0.2, 0.3]), []) is None


def test_an_inactive_candidate_has_no_forward_and_no_gradient():
    op = MixedOp(ALL, 4, 4, 1)
    gates = torch.full((8,), 1 / 8, requires_grad=True)
    op(torch.randn(2, 4, 6, 6), gates, [3, 4]).sum().backward()
    assert [bool(g) for g in gates.grad] == [False] * 3 + [True, bool(gates.grad[4])] + [False] * 3
    assert all(p.grad is None for p in op.ops[5].parameters())
    assert all(p.grad is not None for p in op.ops[4].parameters())


@pytest.mark.parametrize("stride", [1, 2])
def test_partial_equals_a_naive_loop_over_channels(stride: int):
    torch.manual_seed(1)
    k, C = 4, 8
    op = PartialMixedOp(ALL, C, C, stride, k=k)
    x, gates = torch.randn(2, C, 6, 8), torch.rand(8)
    mixed = sum(gates[o] * op.mixed.ops[o](x[:, : C // k]) for o in EVERY)
    expected = torch.empty(2, C, 6 // stride, 8 // stride)
    for i in range(C // k):
        for g in range(k):
            source = g * (C // k) + i
            channel = mixed[:, source] if source < C // k else x[:, source]
            if source >= C // k and stride == 2:
                channel = nn.functional.max_pool2d(x[:, source : source + 1], 2)[:, 0]
            expected[:, i * k + g] = channel
    torch.testing.assert_close(op(x, gates, EVERY), expected)


def test_shuffle_of_eight_channels_in_four_groups():
    op = PartialMixedOp([times(1.0)], 8, 8, 1, k=4)
    x = torch.arange(8.0).view(1, 8, 1, 1)
    assert op(x, torch.ones(1), [0]).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_k_of_one_is_a_full_mixed_op_bit_for_bit():
    torch.manual_seed(2)
    full = MixedOp(ALL, 8, 8, 2)
    torch.manual_seed(2)
    partial = PartialMixedOp(ALL, 8, 8, 2, k=1)
    x, gates = torch.randn(2, 8, 7, 7), torch.rand(8)
    assert torch.equal(full(x, gates, EVERY), partial(x, gates, EVERY))


def test_the_gradient_of_the_gates_does_not_see_the_bypass():
    op = PartialMixedOp(ALL, 8, 8, 1, k=4)
    x, found = torch.randn(2, 8, 6, 6), []
    # The loss weighs each channel, and the bypassed channels change between the two passes.
    weights = torch.randn(1, 8, 1, 1)
    for _ in range(2):
        gates = torch.full((8,), 1 / 8, requires_grad=True)
        (weights * op(x, gates, EVERY)).sum().backward()
        found.append(gates.grad)
        x = torch.cat([x[:, :2], torch.randn(2, 6, 6, 6)], 1)
    assert torch.equal(*found)


@pytest.mark.parametrize(("channels", "k"), [(10, 4), (3, 2)])
def test_channels_that_do_not_divide_are_refused(channels: int, k: int):
    with pytest.raises(
        ValueError, match=f"{channels} channels cannot be split into k={k} equal parts"
    ):
        PartialMixedOp(ALL, channels, channels, 1, k=k)


@pytest.mark.parametrize("k", [0, -1, 2.0, True])
def test_k_must_be_a_positive_whole_number(k: object):
    with pytest.raises(ValueError, match=r"^k: expected a whole number of at least 1"):
        PartialMixedOp(ALL, 8, 8, 1, k=k)


@pytest.mark.parametrize("size", [(7, 7), (33, 47), (1, 1), (2, 5)])
@pytest.mark.parametrize("k", [1, 2])
def test_odd_sizes_are_halved_upwards(size: tuple[int, int], k: int):
    op = PartialMixedOp(ALL, 4, 4, 2, k=k)
    y = op(torch.randn(3, 4, *size), torch.full((8,), 1 / 8), EVERY)
    assert y.shape == (3, 4, -(-size[0] // 2), -(-size[1] // 2))


def test_drop_path_drops_whole_images_and_rescales():
    edge = ChosenOps([times(1.0)], 1, 1, 1)
    edge.drop = 0.25
    y = edge(torch.ones(10_000, 1, 2, 2))
    assert sorted(set(y.flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert torch.equal(y.amin((1, 2, 3)), y.amax((1, 2, 3)))
    assert float((y[:, 0, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    edge.eval()
    assert torch.equal(edge(torch.ones(8, 1, 2, 2)), torch.ones(8, 1, 2, 2))


def test_drop_path_spares_identities():
    edge = ChosenOps([CANDIDATES["skip_connect"]], 4, 4, 1)
    edge.drop = 0.99
    x = torch.randn(64, 4, 2, 2)
    assert torch.equal(edge(x), x)
