"""DARTS sheet, test 6, and the PC-DARTS sheet, test 7, by hand."""

import pytest
import torch

from search_spaces.cells import Cell, complete_edges
from strategies.discretisation.strongest import best_options, rows_first, strongest, top_rows

NAMES = ["none", "skip_connect", "sep_conv_3x3"]
CELL = Cell(2, 1, complete_edges(2, 1, NAMES), keep=2)
TWO = Cell(2, 2, complete_edges(2, 2, NAMES), keep=2)
ALIVE = torch.ones(5, 3, dtype=torch.bool)


def test_none_is_never_picked_even_where_it_is_largest():
    gates = torch.tensor([[0.9, 0.06, 0.04], [0.8, 0.05, 0.15]])
    assert top_rows(CELL, gates, None, ALIVE[:2]) == {
        "1-2": ("sep_conv_3x3",),
        "0-2": ("skip_connect",),
    }


def test_none_still_lowers_the_strength_of_its_edge():
    rows = torch.tensor(
        [[0.9, 0.05, 0.05]] * 2 + [[0.8, 0.19, 0.01], [0.0, 0.5, 0.5], [0.2, 0.5, 0.3]]
    )
    # Renormalised without none, edge 0-3 would have strength 0.95 and win.
    assert list(top_rows(TWO, rows, None, ALIVE))[2:] == ["1-3", "2-3"]


def test_ties_go_to_the_lower_source_and_the_lower_candidate():
    gates = torch.full((5, 3), 1 / 3)
    assert top_rows(TWO, gates, None, ALIVE) == {
        "0-2": ("skip_connect",),
        "1-2": ("skip_connect",),
        "0-3": ("skip_connect",),
        "1-3": ("skip_connect",),
    }


def test_ties_are_not_told_apart_by_name():
    gates = torch.tensor([[0.0, 0.5, 0.4], [0.0, 0.4, 0.5]])
    assert list(top_rows(CELL, gates, None, ALIVE[:2]).items()) == [
        ("0-2", ("skip_connect",)),
        ("1-2", ("sep_conv_3x3",)),
    ]


def test_ties_on_an_edge_go_to_the_lower_candidate():
    gates = torch.tensor([[0.2, 0.4, 0.4], [0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    cell = Cell(1, 2, complete_edges(1, 2, NAMES), keep=None, output="last")
    kept = best_options(cell, gates, None, ALIVE[:3])
    assert kept == {"0-1": ("skip_connect",), "1-2": ("skip_connect",)}


def test_a_node_takes_distinct_sources():
    gates = torch.tensor([[0.0, 0.5, 0.5], [0.8, 0.1, 0.1]] + [[1.0, 0.0, 0.0]] * 3)
    assert list(top_rows(TWO, gates, None, ALIVE))[:2] == ["0-2", "1-2"]


def test_pruned_candidates_are_not_read():
    alive = ALIVE[:2].clone()
    alive[0, 2] = False
    assert top_rows(CELL, torch.tensor([[0.0, 0.1, 0.9], [0.0, 0.2, 0.1]]), None, alive)["0-2"] == (
        "skip_connect",
    )


def test_a_node_with_everything_pruned_is_an_error():
    with pytest.raises(ValueError, match="no candidate into node 2 is left"):
        top_rows(CELL, torch.zeros(2, 3), None, torch.zeros(2, 3, dtype=torch.bool))


def test_factors_overturn_edges_but_never_candidates():
    gates = torch.tensor([[0.0, 0.4, 0.6]] * 3)
    factors = torch.tensor([0.2, 0.3, 0.5])
    cell = Cell(3, 1, complete_edges(3, 1, NAMES), keep=2)
    assert top_rows(cell, gates, factors, ALIVE[:3]) == {
        "2-3": ("sep_conv_3x3",),
        "1-3": ("sep_conv_3x3",),
    }


def test_the_space_says_which_rule():
    cell = Cell(1, 2, complete_edges(1, 2, NAMES), keep=None, output="last")
    gates = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    kept = strongest(cell, gates, None, ALIVE[:3])
    assert kept == best_options(cell, gates, None, ALIVE[:3])
    assert kept == {"0-2": ("sep_conv_3x3",), "1-2": ("skip_connect",)}


def test_names_before_none_in_the_alphabet_are_read():
    names = ["none", "dil_conv_3x3", "skip_connect"]
    gates = torch.tensor([[0.1, 0.6, 0.3], [0.1, 0.3, 0.6], [0.6, 0.3, 0.1]])
    two = Cell(2, 1, complete_edges(2, 1, names), keep=2)
    assert top_rows(two, gates[:2], None, ALIVE[:2]) == {
        "0-2": ("dil_conv_3x3",),
        "1-2": ("skip_connect",),
    }
    every = Cell(1, 2, complete_edges(1, 2, names), keep=None, output="last")
    assert best_options(every, gates, None, ALIVE[:3]) == {
        "0-1": ("dil_conv_3x3",),
        "0-2": ("skip_connect",),
    }


def test_rows_first_is_the_usual_rule_without_factors_or_where_all_rows_are_kept():
    gates = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    everything = Cell(2, 1, complete_edges(2, 1, NAMES), keep=None)
    factors = torch.tensor([0.9, 0.1])
    for cell, given in ((CELL, None), (everything, None), (everything, factors)):
        assert rows_first(cell, gates, given, ALIVE[:2]) == strongest(cell, gates, given, ALIVE[:2])


def test_rows_first_compares_factors_alone_whatever_is_pruned():
    """The row of the larger factor, though its largest gate is of an option that was pruned."""
    one = Cell(2, 1, complete_edges(2, 1, NAMES), keep=1)
    gates = torch.tensor([[0.0, 0.9, 0.1], [0.0, 0.5, 0.5]])
    alive = torch.tensor([[True, False, True], [True, True, True]])
    assert rows_first(one, gates, torch.tensor([0.6, 0.4]), alive) == {"0-2": ("sep_conv_3x3",)}
