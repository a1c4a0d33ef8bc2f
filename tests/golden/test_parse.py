"""Discretisation, order of edges included, against public implementations."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from golden_files import arch_str_edges, cases, genotype_edges
from omegaconf import DictConfig
from test_every_config import composed, make

from search_spaces.cells import Cell, CellSpace, Layer, complete_edges
from search_spaces.darts import CANDIDATES as DARTS
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.space import Space

Golden = Callable[[str], Any]
FILE = "genotype_parse.json"


def by_id(section: str) -> Callable[[Any], dict[str, Any]]:
    return lambda data: {case["id"]: case for case in data[section]}


@cache
def strategy_of(name: str) -> DictConfig:
    return composed(f"strategy={name}").strategy


def read(
    cell: Cell, alphas: list[list[float]], betas: list[float] | None = None
) -> Mapping[str, tuple[str, ...]]:
    """What a strategy with these alphas and betas keeps of the cell; float32, as the originals."""
    space = one_cell(cell)
    strategy = make(strategy_of("darts" if betas is None else "pcdarts"), space=space)
    strategy.alphas["cell"].data.copy_(torch.tensor(alphas))
    for beta in strategy.betas.values():
        beta.data.copy_(torch.tensor(betas))
    found: Mapping[str, tuple[str, ...]] = strategy.architecture().choices["cell"]
    return found


def one_cell(cell: Cell) -> Space:
    return CellSpace(
        name="one_cell", family=one_cell, settings={}, cells={"cell": cell},
        layers=(Layer("cell", "cell", 8, False),), operations={}, input_shape=(1, 8, 8),
        classes=2, stem="plain", stem_channels=8, preprocess=False, head="pool_linear",
    )  # fmt: skip


def check_darts(cell: Cell, case: Any, kind: str, betas: list[float] | None = None) -> None:
    kept = read(cell, case[f"alphas_{kind}"], betas)
    assert [(edge, name) for edge, (name,) in kept.items()] == genotype_edges(
        case["genotype"][kind]
    )


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
    kept = read(cell, case["alphas"])
    expected = [(edge, name) for edge, name in arch_str_edges(case["arch_str"]) if name != "none"]
    assert cell.connects(kept)  # the original also returns cells that are cut off
    if case["is_connected"]:
        assert [(edge, name) for edge, (name,) in kept.items()] == expected
    else:
        assert not cell.connects({edge: (name,) for edge, name in expected})
