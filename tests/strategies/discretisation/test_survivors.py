"""Whatever pruning has left is kept."""

import pytest
import torch

from search_spaces.cells import Cell, complete_edges
from strategies.discretisation.survivors import survivors

NAMES = ["none", "skip_connect", "sep_conv_3x3"]


def test_every_alive_candidate_is_kept_but_none():
    cell = Cell(2, 2, complete_edges(2, 2, NAMES), keep=2)
    alive = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=torch.bool)
    assert survivors(cell, torch.rand(5, 3), None, alive) == {
        "0-2": ("skip_connect", "sep_conv_3x3"),
        "1-3": ("sep_conv_3x3",),
        "2-3": ("skip_connect",),
    }


def test_a_name_before_none_in_the_alphabet_is_kept():
    cell = Cell(1, 1, complete_edges(1, 1, ["none", "dil_conv_3x3"]), keep=1)
    alive = torch.ones(1, 2, dtype=torch.bool)
    assert survivors(cell, torch.rand(1, 2), None, alive) == {"0-1": ("dil_conv_3x3",)}


def test_a_node_that_nothing_enters_is_an_error_that_names_the_pruning():
    cell = Cell(2, 1, complete_edges(2, 1, NAMES), keep=2)
    alive = torch.tensor([[True, False, False], [True, False, False]])
    with pytest.raises(ValueError, match=r"^no candidate into node 2 is left"):
        survivors(cell, torch.rand(2, 3), None, alive)


def test_where_the_space_wants_one_candidate_an_edge_the_strongest_survivor_is_kept():
    cell = Cell(1, 2, complete_edges(1, 2, NAMES), keep=None, output="last")
    alive = torch.tensor([[0, 1, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.bool)
    gates = torch.tensor([[0.9, 0.2, 0.3], [0.9, 0.9, 0.9], [0.1, 0.1, 0.9]])
    assert survivors(cell, gates, None, alive) == {
        "0-1": ("sep_conv_3x3",),
        "1-2": ("skip_connect",),
    }
