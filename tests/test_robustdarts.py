"""The spaces S1 to S4 of RobustDARTS as configured: known answers, and whole runs.

Source: Zela et al. 2020, arXiv:1909.09656, section 3; the tables of its public code.
"""

import json

import pytest
import torch
from test_command_line import TINY, line_of
from test_every_config import composed, make

from archsmith.phases import run as runs
from search_spaces.architecture import Architecture
from search_spaces.space import Space

SPACES = ["s1", "s2", "s3", "s4"]
NAMES = {
    "skip": "skip_connect", "max": "max_pool_3x3", "avg": "avg_pool_3x3", "sep3": "sep_conv_3x3",
    "dil3": "dil_conv_3x3", "dil5": "dil_conv_5x5", "noise": "noise", "none": "none",
}  # fmt: skip
S1 = """
0-2  skip dil3   max avg
1-2  skip dil5   max dil3
0-3  skip dil5   max avg
1-3  skip sep3   max avg
2-3  skip dil3   skip dil5
0-4  max skip    max avg
1-4  skip sep3   max sep3
2-4  skip sep3   skip dil3
3-4  skip dil3   skip dil5
0-5  skip sep3   max avg
1-5  max skip    max avg
2-5  skip dil3   skip dil5
3-5  dil3 dil5   skip dil5
4-5  dil3 dil5   skip dil5
"""


def space_of(name: str, *overrides: str) -> Space:
    config = composed(f"space={name}", "strategy=darts", "experiment=paper", *overrides)
    return make(config.space, input_shape=(3, 8, 8), classes=10)


def found_with(name: str, column: int) -> Architecture:
    """What DARTS keeps if the largest alpha of every edge stands in this column."""
    strategy = make(composed("strategy=darts").strategy, space=space_of(name))
    for alphas in strategy.alphas.values():
        alphas.data.zero_()
        alphas.data[:, column] = 1.0
    return strategy.architecture()


def test_robustdarts_7_s1_table():
    rows = [line.split() for line in S1.strip().splitlines()]
    for kind, columns in {"normal": slice(1, 3), "reduce": slice(3, 5)}.items():
        expected = {row[0]: tuple(NAMES[short] for short in row[columns]) for row in rows}
        found = {edge.name: edge.names for edge in space_of("s1").cells[kind].edges}
        assert found == expected
        assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("name", "candidates"), [("s2", "skip sep3"), ("s3", "none skip sep3"), ("s4", "noise sep3")]
)
def test_robustdarts_7_candidates_of_all_edges(name: str, candidates: str):
    expected = tuple(NAMES[short] for short in candidates.split())
    for cell in space_of(name).cells.values():
        assert [edge.names for edge in cell.edges] == [expected] * 14


@pytest.mark.parametrize(("name", "alphas"), [("s1", 56), ("s2", 56), ("s3", 84), ("s4", 56)])
def test_robustdarts_2_number_of_alphas(name: str, alphas: int):
    strategy = make(composed("strategy=darts").strategy, space=space_of(name))
    assert sum(p.numel() for p in strategy.arch_parameters()) == alphas


@pytest.mark.parametrize("column", [0, 1])
def test_robustdarts_b_each_edge_of_s1_keeps_a_candidate_of_its_own(column: int):
    """The public code looks a name up by the edge's position within its node."""
    space, found = space_of("s1"), found_with("s1", column)
    for kind, cell in space.cells.items():
        own = {edge.name: edge.names[column] for edge in cell.edges}
        assert len(found.choices[kind]) == 8
        assert all(kept == (own[edge],) for edge, kept in found.choices[kind].items())
    if column == 1:  # the second edge of node 3; that of node 2 would give dil_conv_5x5
        assert found.choices["normal"]["1-3"] == ("sep_conv_3x3",)


def test_robustdarts_7_noise_is_chosen_like_any_other():
    cells = found_with("s4", 0).choices.values()
    assert {kept for cell in cells for kept in cell.values()} == {("noise",)}


def test_robustdarts_7_none_is_never_kept():
    cells = found_with("s3", 0).choices.values()
    assert {len(cell) for cell in cells} == {8}


@pytest.mark.parametrize("name", SPACES)
def test_architecture_files_hold_the_space(name: str, tmp_path):
    space, found = space_of(name), found_with(name, 1)
    found.save(tmp_path / "found.json")
    again = Architecture.load(tmp_path / "found.json")
    assert again == found
    settings = {key: value for key, value in again.space.items() if key != "name"}
    rebuilt = space.family(**settings)
    assert {k: c.edges for k, c in rebuilt.cells.items()} == {
        k: c.edges for k, c in space.cells.items()
    }
    again.check(rebuilt)


def test_another_number_of_nodes_is_one_line(archsmith):
    said = archsmith("space=s1", "space.nodes=3")
    assert said.code == 2
    assert "space.candidates: 14 lists for 9 edges" in line_of(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.exhaustive if n in "s2 s3" else []) for n in SPACES]
)
def test_a_run_ends_with_an_export(archsmith, tmp_path, name: str):
    tiny = [one for one in TINY if not one.startswith("space.nodes")]
    formats = "export.formats=[standalone,genotype]"
    assert archsmith(f"space={name}", *tiny, formats, f"hydra.run.dir={tmp_path}").code == 0
    forms = json.loads((tmp_path / "export" / "export.json").read_text())["forms"]
    assert forms["standalone"]["max_abs_difference"] == 0.0
    assert "file" in forms["genotype"]


@pytest.mark.slow
def test_an_evaluation_draws_the_same_noise_again(archsmith, tmp_path, monkeypatch):
    """In the run itself and in one of its own."""
    states, measured = [], runs.evaluate

    def evaluate(*given, **more):
        states.append(torch.get_rng_state())
        return measured(*given, **more)

    monkeypatch.setattr(runs, "evaluate", evaluate)
    folder = f"hydra.run.dir={tmp_path / 'run'}"
    assert archsmith("space=s4", *TINY, "export.formats=[]", folder).code == 0
    given = [f"architecture={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'again'}"]
    assert archsmith("task=evaluate", *TINY[:4], *given).code == 0
    assert torch.equal(*states)
