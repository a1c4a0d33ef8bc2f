"""Sheet others.md, Fair DARTS: the zero-one loss, the threshold and its saddle."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from search_spaces.cells import Cell, complete_edges
from strategies.discretisation.threshold import above_threshold
from strategies.losses.zero_one import ZeroOne
from supernets.mixture import GroupMixture, Mixture


def term(gates: Tensor, alive: Tensor) -> Tensor:
    strategy: Any = SimpleNamespace(alive={"cell": alive})
    loss, nothing = ZeroOne(10.0), torch.nn.Identity()
    loss.setup(nothing, strategy)
    mixture = Mixture({"cell": GroupMixture(gates, None, [])})
    return loss(nothing, (gates, gates), gates, mixture)


def test_fairdarts_the_loss_by_hand():
    """-10 (0.4^2 + 0 + 0.5^2); what is not alive does not count."""
    gates = torch.tensor([[0.9, 0.5], [0.0, 0.3]])
    alive = torch.tensor([[True, True], [True, False]])
    assert float(term(gates, alive)) == pytest.approx(-10 * (0.16 + 0.25))


def test_fairdarts_alphas_of_zero_are_a_saddle():
    alphas = torch.tensor([[0.0, 0.1, -0.1]], requires_grad=True)
    term(alphas.sigmoid(), torch.ones(1, 3, dtype=torch.bool)).backward()
    zero, up, down = alphas.grad[0].tolist()
    assert zero == 0
    assert up < 0 < down  # descent leads away from one half
    assert up == pytest.approx(-down, rel=1e-4)


NAMES = ["none", "skip_connect", "sep_conv_3x3"]
CELL = Cell(2, 2, complete_edges(2, 2, NAMES), keep=2)


def read(gates: list[list[float]], threshold: float = 0.85, keep: int | None = 2) -> dict:
    cell = Cell(2, 2, complete_edges(2, 2, NAMES), keep=keep)
    table = torch.tensor(gates)
    return above_threshold(cell, table, None, torch.ones_like(table).bool(), threshold=threshold)


def test_fairdarts_what_exceeds_the_threshold_is_kept_at_most_two_rows_a_node():
    gates = [
        [0.99, 0.90, 0.95],  # 0-2: the best real candidate
        [0.99, 0.10, 0.84],  # 1-2: below
        [0.0, 0.86, 0.0],  # 0-3: the weakest of three
        [0.0, 0.0, 0.97],
        [0.0, 0.96, 0.0],
    ]
    assert read(gates) == {
        "0-2": ("sep_conv_3x3",), "1-3": ("sep_conv_3x3",), "2-3": ("skip_connect",)
    }  # fmt: skip


def test_fairdarts_a_node_that_nothing_passes_keeps_its_best_row():
    gates = [[0.9, 0.1, 0.2], [0.9, 0.6, 0.2], *[[0.0, 0.3, 0.4]] * 2, [0.0, 0.3, 0.5]]
    assert read(gates) == {"1-2": ("skip_connect",), "2-3": ("sep_conv_3x3",)}


def test_fairdarts_rows_are_dropped_where_each_is_read_by_itself():
    gates = [[0.0, 0.1, 0.9], *[[0.0, 0.1, 0.2]] * 3, [0.9, 0.1, 0.2]]
    found = read(gates, keep=None)
    assert found == {"0-2": ("sep_conv_3x3",), "0-3": ("sep_conv_3x3",)}


def test_fairdarts_where_none_leads_a_node_still_keeps_its_best_row():
    gates = [[0.6, 0.5, 0.5]] * 5
    assert read(gates, keep=None) == {"0-2": ("skip_connect",), "0-3": ("skip_connect",)}


def test_a_threshold_that_nothing_can_exceed_is_refused():
    with pytest.raises(ValueError, match="threshold: expected a number of at least 0 and below 1"):
        read([[0.5] * 3] * 5, threshold=1.0)


def test_fairdarts_a_gate_at_the_threshold_does_not_exceed_it():
    halves, nines = [0.0, 0.5, 0.0], [0.0, 0.9, 0.0]
    assert list(read([halves, nines, nines, halves, nines], threshold=0.5)) == ["1-2", "0-3", "2-3"]
