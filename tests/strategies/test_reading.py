"""How a strategy reads its architecture: by gates times factors, which rank otherwise than alphas.

Three edges lead into one node, which keeps one. Each edge has two candidates.
"""

from dataclasses import replace

import pytest
import torch
from test_every_config import composed, make

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.darts import CANDIDATES
from search_spaces.space import Space
from strategies.strategy import Strategy

NAMES = ["skip_connect", "sep_conv_3x3"]
# Largest alphas: 5, 2, 1. Largest gates: 1/(1+e^-0.1) = 0.525, 1/(1+e^-2) = 0.881, and 0.731.
ALPHAS = [[4.9, 5.0], [0.0, 2.0], [1.0, 0.0]]
BETAS = [0.0, 0.0, 1.0]  # factors 0.212, 0.212, 0.576: times gates 0.111, 0.187, 0.421


def one_node() -> Space:
    cell = Cell(3, 1, complete_edges(3, 1, NAMES), keep=1)
    return CellSpace(
        name="one_node", family=one_node, settings={}, cells={"cell": cell},
        layers=(Layer("cell", "cell", 8, False),),
        operations={name: CANDIDATES[name] for name in NAMES}, input_shape=(1, 8, 8),
        classes=2, stem="plain", stem_channels=8, preprocess=False, head="pool_linear",
    )  # fmt: skip


def ready(*overrides: str) -> Strategy:
    strategy: Strategy = make(composed(*overrides).strategy, space=one_node())
    strategy.alphas["cell"].data.copy_(torch.tensor(ALPHAS))
    for beta in strategy.betas.values():
        beta.data.copy_(torch.tensor(BETAS))
    return strategy


def test_d1_edges_are_ranked_by_gates_and_not_by_alphas():
    strategy = ready("strategy=darts")
    expected = torch.tensor([[0.475, 0.525], [0.119, 0.881], [0.731, 0.269]])
    torch.testing.assert_close(strategy.gates()["cell"], expected, atol=1e-3, rtol=0)
    assert strategy.architecture().choices == {"cell": {"1-3": ("sep_conv_3x3",)}}


def test_d1_factors_of_edges_count_in_what_is_read():
    strategy = ready("strategy=darts", "strategy/topology=edge_normalisation")
    expected = torch.tensor([[0.1007, 0.1113], [0.0253, 0.1867], [0.4211, 0.1549]])
    torch.testing.assert_close(strategy.gates()["cell"], expected, atol=1e-3, rtol=0)
    assert strategy.architecture().choices == {"cell": {"2-3": ("skip_connect",)}}


def test_what_is_pruned_is_not_read():
    strategy = ready("strategy=darts")
    strategy.prune({"cell": torch.tensor([[True, True], [True, False], [True, True]])})
    # alone on its edge, the weak candidate of 1-3 has gate 1
    assert strategy.architecture().choices == {"cell": {"1-3": ("skip_connect",)}}


def test_gates_that_are_drawn_are_read_by_their_mean():
    strategy = ready("strategy=gdas")
    first = strategy.gates()["cell"]
    assert torch.equal(first, strategy.gates()["cell"])
    assert first[1, 1].item() == pytest.approx(0.881, abs=1e-3)
    assert strategy.architecture(seed=3).meta == {"seed": 3}


def cut_off(output: str) -> Strategy:
    """Two nodes behind one input; `none` wins every edge by gates of 0.7, 0.6 and 0.5."""
    names = ["none", "skip_connect", "sep_conv_3x3"]
    cell = Cell(1, 2, complete_edges(1, 2, names), keep=None, output=output)
    space = replace(one_node(), cells={"cell": cell})
    strategy: Strategy = make(composed("strategy=darts").strategy, space=space)
    gates = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.15, 0.25], [0.5, 0.4, 0.1]])  # 0-1, 0-2, 1-2
    strategy.alphas["cell"].data.copy_(gates.log())
    return strategy


def test_b2_a_cell_that_none_cuts_off_is_read_as_the_best_connected_one():
    """The last node alone is the output: 0-2 alone loses 0.25/0.6 = 0.42, both others 0.23."""
    found = cut_off("last").architecture(seed=1)
    assert found.choices == {"cell": {"0-2": ("sep_conv_3x3",)}}
    assert found.meta == {"seed": 1, "reconnected": ["cell"]}


def test_a_cell_of_which_every_node_is_output_needs_one_edge_from_an_input():
    strategy = cut_off("concat")
    assert strategy.architecture().choices == {"cell": {"0-2": ("sep_conv_3x3",)}}
    strategy.prune({"cell": torch.tensor([[True] * 3, [True, False, False], [True] * 3])})
    assert strategy.architecture().choices == {"cell": {"0-1": ("skip_connect",)}}


def test_b2_a_way_over_two_edges_is_taken_where_it_is_the_better_one():
    strategy = cut_off("last")
    strategy.prune({"cell": torch.tensor([[True] * 3, [True, True, False], [True] * 3])})
    # shares anew: none 0.8 and skip 0.2 on 0-2, a loss of 1/4; over 0-1 and 1-2 of 2/7 * 4/5
    assert strategy.architecture().choices == {"cell": {"0-2": ("skip_connect",)}}
    strategy.alphas["cell"].data[2, 1] += 1.0
    assert strategy.architecture().choices == {
        "cell": {"0-1": ("skip_connect",), "1-2": ("skip_connect",)}
    }


def test_what_is_connected_is_read_by_the_rule_and_not_remarked():
    strategy = cut_off("last")
    strategy.alphas["cell"].data[1, 2] += 2.0
    found = strategy.architecture()
    assert found.choices == {"cell": {"0-2": ("sep_conv_3x3",)}}
    assert found.meta == {}


def test_a_cell_through_which_nothing_can_get_is_refused():
    strategy = cut_off("last")
    strategy.prune({"cell": torch.tensor([[True] * 3, [True, False, False], [True, False, False]])})
    with pytest.raises(ValueError, match="no way from a cell's input to its output is left"):
        strategy.architecture()
