"""How well a supernet ranks architectures, compared with a tabular benchmark."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from archsmith.data.benchmark import Benchmark, standing
from archsmith.data.roles import Roles
from archsmith.train.evaluate import evaluate, restore_statistics
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from supernets.mixture import Mixture
from supernets.network import Network


def rank_correlation(
    net: Network, space: Space, roles: Roles, benchmark: Benchmark, seed: int
) -> dict[str, Any]:
    """Kendall's tau between the accuracies with the supernet's weights and those of the table, over
    randomly drawn architectures.

    Each is evaluated on `select` with re-estimated batch-norm statistics; `net` is restored
    afterwards.
    """
    table = benchmark.read()
    torch.manual_seed(seed)
    draw = RandomSearch(space)
    architectures = [draw.ask() for _ in range(benchmark.samples)]
    inherited = [_inherited(net, space, roles, one) for one in architectures]
    true = [standing(table, one)["accuracy"] for one in architectures]
    return agreement(inherited, true, benchmark)


def agreement(
    scores: Sequence[float], true: Sequence[float], benchmark: Benchmark
) -> dict[str, Any]:
    """Kendall's tau between scores of architectures and their accuracies in the table."""
    return {
        "kendall_tau": kendall_tau(scores, true),
        "samples": len(scores),
        "column": benchmark.column,
    }


def _inherited(net: Network, space: Space, roles: Roles, architecture: Architecture) -> float:
    state = {name: value.clone() for name, value in net.state_dict().items()}
    mixture = Mixture.of(architecture, space, next(net.parameters()).device)
    restore_statistics(net, roles.statistics, mixture)
    accuracy = evaluate(net, roles.select, mixture)["accuracy"]
    net.load_state_dict(state)
    return accuracy


def kendall_tau(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Kendall's tau-b; 0 if one side is constant."""
    from scipy.stats import kendalltau  # the import takes a second

    found = float(kendalltau(ours, theirs).statistic)
    return 0.0 if math.isnan(found) else found
