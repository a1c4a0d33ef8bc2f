"""Texts of the field to architectures and back; hostile texts are refused and run nothing."""

import re
from pathlib import Path

import pytest

from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.genotype import (
    from_genotype,
    from_nasbench201,
    published,
    to_genotype,
    to_nasbench201,
)
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.nasbench201 import nasbench201

SHAPES = {"input_shape": (3, 32, 32), "classes": 10}
DARTS = darts(layers=8, nodes=4, channels=16, candidates=list(CANDIDATES), **SHAPES)
SMALL = darts(layers=3, nodes=1, channels=8, candidates=list(CANDIDATES), **SHAPES)
BENCH = nasbench201(layers=17, nodes=3, channels=16, candidates=list(NASBENCH201), **SHAPES)

# As in the public code of DARTS, arXiv:1806.09055: DARTS_V2, the stronger edge of a node first.
V2 = """Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
    ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0),
    ('skip_connect', 0), ('dil_conv_3x3', 2)],
    normal_concat=[2, 3, 4, 5],
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),
    ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],
    reduce_concat=[2, 3, 4, 5])"""
V2_BY_PREDECESSOR = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('max_pool_3x3', 1), ('skip_connect', 2)], reduce_concat=range(2, 6))"
)


def one_node(normal: str, concat: str = "range(2, 3)") -> str:
    reduce = "[('skip_connect', 0), ('skip_connect', 1)]"
    return f"Genotype(normal={normal}, normal_concat={concat}, reduce={reduce}, reduce_concat=[2])"


def test_darts_v2_is_read_edge_by_edge():
    found = from_genotype(V2, DARTS)

    assert found.choices["normal"] == {
        "0-2": ("sep_conv_3x3",),
        "1-2": ("sep_conv_3x3",),
        "0-3": ("sep_conv_3x3",),
        "1-3": ("sep_conv_3x3",),
        "1-4": ("sep_conv_3x3",),
        "0-4": ("skip_connect",),
        "0-5": ("skip_connect",),
        "2-5": ("dil_conv_3x3",),
    }
    assert found.choices["reduce"]["2-3"] == ("skip_connect",)


def test_darts_v2_is_written_by_predecessor():
    assert to_genotype(from_genotype(V2, DARTS)) == V2_BY_PREDECESSOR


def test_text_of_a_genotype_is_stable():
    assert to_genotype(from_genotype(V2_BY_PREDECESSOR, DARTS)) == V2_BY_PREDECESSOR


def test_none_is_dropped_and_written_for_a_missing_input():
    found = from_genotype(one_node("[('none', 0), ('sep_conv_5x5', 1)]"), SMALL)

    assert found.choices["normal"] == {"1-2": ("sep_conv_5x5",)}
    assert "normal=[('none', 0), ('sep_conv_5x5', 1)]" in to_genotype(found)
    assert from_genotype(to_genotype(found), SMALL) == found


def test_none_beside_a_candidate_of_its_edge_is_dropped():
    found = from_genotype(one_node("[('none', 0), ('sep_conv_5x5', 0)]"), SMALL)

    assert found.choices["normal"] == {"0-2": ("sep_conv_5x5",)}
    assert from_genotype(to_genotype(found), SMALL) == found


def test_two_candidates_on_one_edge_are_both_kept():
    found = from_genotype(one_node("[('sep_conv_3x3', 0), ('avg_pool_3x3', 0)]"), SMALL)

    assert found.choices["normal"] == {"0-2": ("avg_pool_3x3", "sep_conv_3x3")}
    assert from_genotype(to_genotype(found), SMALL) == found


HOSTILE = {
    "call": "__import__('pathlib').Path('{file}').touch()",
    "argument": "Genotype(normal=__import__('pathlib').Path('{file}').touch(), "
    "normal_concat=range(2, 3), reduce=[], reduce_concat=range(2, 3))",
    "inside a list": one_node("[(open('{file}', 'w').name, 0), ('skip_connect', 1)]"),
    "concat": one_node("[('skip_connect', 0), ('skip_connect', 1)]", "open('{file}', 'w')"),
    "range": one_node(
        "[('skip_connect', 0), ('skip_connect', 1)]", "range(2, open('{file}', 'w'))"
    ),
    "comprehension": one_node("[open('{file}', 'w') for _ in '1']"),
    "lambda": "(lambda: open('{file}', 'w'))()",
    "format": "Genotype(f\"{{open('{file}', 'w')}}\")",
    "statement": "import pathlib; pathlib.Path('{file}').touch()",
    "decoy name": "x.Genotype(normal=open('{file}', 'w'))",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_refused_and_runs_nothing(text, tmp_path):
    trace = tmp_path / "trace"
    with pytest.raises(ValueError, match=r"^genotype: .*expected") as error:
        from_genotype(text.replace("{file}", str(trace)), SMALL)

    assert not trace.exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5_000,
        "-" * 9_000 + "1",
        "a" + ".a" * 9_000,
        one_node("[" * 150 + "]" * 150),
        one_node("-" * 9_000 + "1"),
        "9" * 19_000,
        V2 + " " * 30_000 + "#",
        one_node("[('skip_connect', 0), ('skip_connect', 1)]", "range(2, 10**10)"),
        one_node("[('skip_connect', 0), ('skip_connect', 1)]", "range(2, 999999999)"),
        "\0",
        "",
    ],
    ids=lambda text: f"{text[:12]!r} {len(text)}",
)
def test_degenerate_text_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^genotype: ") as error:
        from_genotype(text, SMALL)

    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            one_node("[('sep_conv_3x3', 0), ('sep_conv_3x3', 2)]"),
            "genotype: normal joins state 2 to node 2, expected a state from 0 to 1; correct",
        ),
        (
            one_node("[('sep_conv_3x3', 0), ('sep_conv_3x3', 0)]"),
            "genotype: normal names 'sep_conv_3x3' twice on edge 0-2, expected two different "
            "candidates or edges; an architecture cannot hold one twice",
        ),
        (
            one_node("[('sep_conv_3x3', 0)] * 2"),
            "genotype: normal is \"[('sep_conv_3x3', 0)] * 2\", expected "
            "[('sep_conv_3x3', 0), ...]; correct the text",
        ),
        (
            one_node("[('sep_conv_3x3', True), ('skip_connect', 0)]"),
            "genotype: normal is \"[('sep_conv_3x3', True), ('skip_connect', 0)]\", "
            "expected [('sep_conv_3x3', 0), ...]; correct the text",
        ),
        (
            one_node("[('skip_connect', 0), ('skip_connect', 1)]", "[3]"),
            "genotype: normal_concat is '[3]', expected range(2, 3); "
            "cells of this space join all their nodes",
        ),
        (
            V2,
            "genotype: normal has 8 inputs, expected 2, two a node; "
            "correct the text, or set the space's nodes to its number of nodes",
        ),
        (
            one_node("[('skip_connect', 0)]"),
            "genotype: normal has 1 inputs, expected 2, two a node; ",
        ),
        (
            "Genotype(normal=[], normal=[])",
            "genotype: found 0 unnamed arguments and ['normal', 'normal'], expected normal, ",
        ),
        (
            one_node("[('sep_conv3x3', 0), ('skip_connect', 1)]"),
            "architecture: unknown option 'sep_conv3x3' in row 0-2 of 'normal'; known: none, ",
        ),
    ],
)
def test_error_says_what_was_found_and_expected(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_genotype(text, SMALL)


def test_genotype_needs_its_space_and_one_cell_of_each_kind():
    per_layer = DARTS.resize(share_alphas=False)
    with pytest.raises(ValueError, match="found space 'nasbench201', expected 'darts'"):
        from_genotype(V2, BENCH)
    with pytest.raises(ValueError, match=r"set the space's share_alphas to true"):
        from_genotype(V2, per_layer)
    with pytest.raises(ValueError, match=r"set the space's share_alphas to true"):
        to_genotype(Architecture.of(per_layer, {group: {} for group in per_layer.groups}))


def test_genotype_of_a_node_with_three_inputs_is_refused():
    three = {"0-2": ["skip_connect", "sep_conv_3x3"], "1-2": ["skip_connect"]}
    found = Architecture.of(SMALL, {"normal": three, "reduce": {}})
    with pytest.raises(ValueError, match="node 2 of 'normal' has 3 inputs, expected at most 2"):
        to_genotype(found)


BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|"


def test_nasbench201_string_is_read_edge_by_edge_and_written_back():
    found = from_nasbench201(BEST, BENCH)

    assert found.choices["cell"] == {
        "0-1": ("nor_conv_3x3",),
        "0-2": ("nor_conv_3x3",),
        "0-3": ("skip_connect",),
        "1-3": ("nor_conv_1x1",),
        "2-3": ("avg_pool_3x3",),
    }
    assert to_nasbench201(found) == BEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|none~0|", "1 nodes in '|none~0|', expected 3 joined by '+'"),
        (BEST.replace("~2", "~1"), "expected |<candidate>~0|<candidate>~1|<candidate>~2|; "),
        (
            BEST.replace("|none~1|", "|"),
            "node 2 is '|nor_conv_3x3~0|', expected |<candidate>~0|<candi",
        ),
        (BEST.replace("none~1", "~1"), "node 2 is '|nor_conv_3x3~0|~1|', expected"),
        (
            BEST.replace("none", "noise"),
            "unknown option 'noise' in row 1-2 of 'cell'; known: none",
        ),
        ("x" * 100_000, "1 nodes in 'xxxx"),
    ],
)
def test_nasbench201_error_says_what_was_found_and_expected(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_nasbench201(text, BENCH)
    assert len(str(error.value)) < 300


def test_nasbench201_string_of_an_edge_with_two_candidates_is_refused():
    found = Architecture.of(BENCH, {"cell": {"0-1": ["skip_connect", "nor_conv_1x1"]}})
    with pytest.raises(ValueError, match="edge 0-1 keeps nor_conv_1x1, skip_connect, expected one"):
        to_nasbench201(found)


def test_published_finds_a_file_or_names_the_nearest():
    assert published("DARTS_V2").name == "DARTS_V2.json"
    with pytest.raises(ValueError, match=r"named 'darts_v2'.*did you mean 'DARTS_V2'"):
        published("darts_v2")


@pytest.mark.parametrize(
    "name", ["../published/DARTS_V2", "", "DARTS_V2.json", str(Path(__file__))]
)
def test_published_never_leaves_its_folder(name):
    with pytest.raises(ValueError, match="no published one is named"):
        published(name)
