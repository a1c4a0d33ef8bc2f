import torch

from search_spaces.cells import Cell, complete_edges
from strategies.topology.edge_normalisation import EdgeNormalisation

CELL = Cell(2, 4, complete_edges(2, 4, ["skip_connect"]), keep=2)
SEGMENTS = [slice(0, 2), slice(2, 5), slice(5, 9), slice(9, 14)]


def test_factors_sum_to_one_per_node_and_nowhere_else():
    beta = torch.randn(14)
    factors, _ = EdgeNormalisation()(beta, CELL, torch.ones(14, dtype=torch.bool))
    for segment in SEGMENTS:
        torch.testing.assert_close(factors[segment], beta[segment].softmax(0))


def test_shifting_a_segment_changes_nothing():
    beta, alive = torch.randn(14), torch.ones(14, dtype=torch.bool)
    shifted = beta.clone()
    shifted[5:9] += 3.0
    found = [EdgeNormalisation().expected(each, CELL, alive) for each in (beta, shifted)]
    torch.testing.assert_close(*found)


def test_dead_edges_and_dead_nodes_get_zero_without_nan():
    beta = torch.zeros(14, requires_grad=True)
    alive = torch.ones(14, dtype=torch.bool)
    alive[0:2] = False
    alive[2] = False
    factors, _ = EdgeNormalisation()(beta, CELL, alive)
    (factors * torch.arange(14.0)).sum().backward()
    assert factors[:5].tolist() == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert torch.isfinite(beta.grad).all()
    assert beta.grad[:3].tolist() == [0.0, 0.0, 0.0]
