"""Discretisation, order of edges included, against public implementations."""

from collections.abc import Callable
from typing import Any

import torch
from golden_files import arch_str_edges, cases, genotype_edges
from torch import Tensor

from search_spaces.architecture import reachable
from search_spaces.darts import CANDIDATES as DARTS
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.space import Cell, complete_edges
from strategies.discretisation.strongest import best_candidates, top_edges
from strategies.edge_normalisation.softmax import EdgeSoftmax
from strategies.relaxation.softmax import Softmax

Golden = Callable[[str], Any]
FILE = "genotype_parse.json"


def by_id(section: str) -> Callable[[Any], dict[str, Any]]:
    return lambda data: {case["id"]: case for case in data[section]}


def relaxed(
    cell: Cell, alphas: list[list[float]], betas: list[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Gates in float32, as the originals ran, and what is alive (rows are padded)."""
    alive = torch.tensor([[o < len(e.candidates) for o in range(cell.width)] for e in cell.edges])
    gates, _ = Softmax(1.0, 1.0)(torch.tensor(alphas), alive)
    if betas is not None:
        gates = EdgeSoftmax()(torch.tensor(betas), cell, alive.any(1))[:, None] * gates
    return gates, alive


def check_darts(cell: Cell, case: Any, kind: str, betas: list[float] | None = None) -> None:
    gates, alive = relaxed(cell, case[f"alphas_{kind}"], betas)
    found = [(edge, name) for edge, (name,) in top_edges(cell, gates, alive).items()]
    assert found == genotype_edges(case["genotype"][kind])


@cases(FILE, by_id("darts"))
def test_darts(golden: Golden, case: Any):
    for kind in ("normal", "reduce"):
        check_darts(Cell(2, 4, complete_edges(2, 4, list(DARTS)), keep=2), case, kind)


@cases(FILE, by_id("pc_darts"))
def test_pcdarts(golden: Golden, case: Any):
    for kind in ("normal", "reduce"):
        cell = Cell(2, 4, complete_edges(2, 4, list(DARTS)), keep=2)
        check_darts(cell, case, kind, case[f"betas_{kind}"])


@cases(FILE, by_id("robust_darts"))
def test_robust_darts(golden: Golden, case: Any):
    rows = golden(FILE)["primitives"]["robust"][case["space"]]
    for kind in ("normal", "reduce"):
        check_darts(Cell(2, 4, complete_edges(2, 4, rows[kind]), keep=2), case, kind)


@cases(FILE, by_id("nas_bench_201"))
def test_nasbench201(golden: Golden, case: Any):
    cell = Cell(1, 3, complete_edges(1, 3, list(NASBENCH201)), keep=None, output="last")
    gates, alive = relaxed(cell, case["alphas"])
    kept = best_candidates(cell, gates, alive)
    expected = [(edge, name) for edge, name in arch_str_edges(case["arch_str"]) if name != "none"]
    assert [(edge, name) for edge, (name,) in kept.items()] == expected
    assert reachable(cell, kept) == case["is_connected"]
