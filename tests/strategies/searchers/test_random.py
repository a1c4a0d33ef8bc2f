"""Random pruning, the control of a pruning search."""

import torch

from search_spaces.goldnas import CANDIDATES, goldnas
from search_spaces.space import Space
from strategies.searchers.random import pruned_at_random
from supernets.costs import candidate_macs
from supernets.mixed_op import MixedOp
from supernets.network import supernet


def space() -> Space:
    return goldnas(
        layers=3, nodes=2, channels=4, candidates=list(CANDIDATES), input_shape=(3, 8, 8), classes=3
    )


def test_cost_comes_to_lie_just_above_the_target_and_every_node_keeps_an_input():
    where = space()
    costs = candidate_macs(supernet(where, MixedOp))
    whole = sum(int(table.sum()) for table in costs.values())
    cheapest = min(int(table[table > 0].min()) for table in costs.values())
    for seed, share in enumerate((0.9, 0.5, 0.3)):
        target = round(share * whole)
        found = pruned_at_random(where, costs, target, torch.Generator().manual_seed(seed))
        left = sum(
            int(costs[group][e, edge.names.index(name)])
            for group, cell in where.groups.items()
            for e, edge in enumerate(cell.edges)
            for name in found.choices[group].get(edge.name, ())
        )
        assert target <= left < target + 4 * cheapest
        for group, cell in where.groups.items():
            entered = {edge.target for edge in cell.edges if edge.name in found.choices[group]}
            assert entered == set(cell.targets)


def test_another_seed_is_another_architecture():
    where = space()
    costs = candidate_macs(supernet(where, MixedOp))
    target = sum(int(table.sum()) for table in costs.values()) // 2
    one, two = (
        pruned_at_random(where, costs, target, torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    assert one != two
    assert one == pruned_at_random(where, costs, target, torch.Generator().manual_seed(0))
