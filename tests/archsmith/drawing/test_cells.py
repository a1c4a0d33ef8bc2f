"""Drawings of cells: they say exactly what is kept, and nothing in them overlaps."""

import random
from collections import Counter
from functools import cache
from itertools import combinations
from xml.etree import ElementTree

import pytest

from archsmith.drawing.boxes import LINE, Drawing
from archsmith.drawing.cell_layout import LETTER, arranged
from archsmith.drawing.cells import LIGHT, cell_svg
from archsmith.drawing.pictures import cell_picture
from archsmith.drawing.shares import THICK, THIN
from search_spaces.architecture import Architecture
from search_spaces.cells import Cell, Edge, complete_edges
from search_spaces.choice import Option
from search_spaces.darts import CANDIDATES, darts
from search_spaces.genotype import PUBLISHED

DARTS = darts(
    layers=8, nodes=4, channels=16, candidates=list(CANDIDATES), input_shape=(3, 32, 32), classes=10
)
V2 = Architecture.load(PUBLISHED / "DARTS_V2.json").choices
NASBENCH201 = Cell(1, 3, complete_edges(1, 3, ["nor_conv_3x3", "skip_connect"]), None, "last")


def random_cell(seed: int) -> tuple[Cell, dict[str, tuple[str, ...]]]:
    """A cell of 1 or 2 inputs and 1 to 8 nodes that keeps some edges, with 1 to 3 operations."""
    draw = random.Random(seed)
    inputs, nodes = draw.randint(1, 2), 1 + seed % 8
    names = [*CANDIDATES, "a_very_long_name_of_an_operation_7x7"]
    output = draw.choice(["concat", "last"])
    cell = Cell(inputs, nodes, complete_edges(inputs, nodes, names), None, output)
    share = draw.choice([0.2, 0.5, 1.0])
    return cell, {
        edge.name: tuple(draw.sample(names, draw.randint(1, 3)))
        for edge in cell.edges
        if draw.random() < share
    }


CASES = {
    f"{path.stem}-{group}": (cell, Architecture.load(path).choices[group])
    for path in sorted(PUBLISHED.glob("*.json"))
    for group, cell in DARTS.groups.items()
} | {f"random-{seed}": random_cell(seed) for seed in range(32)}
MORE = {f"random-{seed}" for seed in range(16, 32)}  # two of each number of nodes are quick
SAMPLED = [pytest.param(name, marks=[pytest.mark.slow] if name in MORE else []) for name in CASES]


@cache
def layout_of(case: str) -> Drawing:
    """What several tests look at, and none changes."""
    return arranged(*CASES[case], "title")


def kept_operations(cell, kept):
    return Counter(
        (edge.source, edge.target, name)
        for edge in cell.edges
        for name in kept.get(edge.name, ())
        if name != "none"
    )


def drawn_operations(layout: Drawing):
    """(source, target, name) of every label, found by following the curves."""
    before = {b: a for a, b, _ in layout.links}  # a label and a lane have one box before them
    found = Counter()
    for label, box in enumerate(layout.boxes):
        if box.role == "label":
            source = before[label]
            while layout.boxes[source].role == "lane":
                source = before[source]
            (target,) = (b for a, b, _ in layout.links if a == label)
            found[int(layout.boxes[source].text), int(layout.boxes[target].text), box.text] += 1
    return found


@pytest.mark.parametrize("case", SAMPLED)
def test_curves_join_what_is_kept_and_nothing_else(case: str):
    assert drawn_operations(layout_of(case)) == kept_operations(*CASES[case])


@pytest.mark.parametrize("case", SAMPLED)
def test_every_lane_leads_somewhere(case: str):
    layout = layout_of(case)
    lanes = {i for i, box in enumerate(layout.boxes) if box.role == "lane"}

    assert lanes <= {a for a, _, _ in layout.links}


@pytest.mark.parametrize("case", SAMPLED)
def test_no_boxes_overlap_and_labels_fit(case: str):
    layout = layout_of(case)
    shown = [box for box in layout.boxes if box.role != "lane"]

    for a, b in combinations(shown, 2):
        apart_x = a.x + a.width < b.x or b.x + b.width < a.x
        apart_y = abs(a.y - b.y) >= (a.height + b.height) / 2 + 11.9
        assert apart_x or apart_y, f"{a.text} over {b.text}"
    for box in shown:
        assert LETTER * max(len(box.text), len(box.caption)) <= box.width - 16
        assert 20 <= box.x <= layout.width - box.width - 20
        assert box.y - box.height / 2 >= 50
        assert box.y + box.height / 2 <= layout.height - 20


@pytest.mark.parametrize("case", SAMPLED)
def test_no_curve_or_lane_runs_over_a_box(case: str):
    layout = layout_of(case)
    shown = [box for box in layout.boxes if box.role != "lane"]

    for curve in layout.curves():
        assert curve.x1 - curve.x0 > 20
        for box in shown:
            assert box.x + box.width <= curve.x0 + 1e-6 or box.x >= curve.x1 - 1e-6
    for lane in layout.boxes:
        if lane.role == "lane":
            beside = [box for box in shown if box.layer == lane.layer]
            assert all(abs(lane.y - box.y) >= box.height / 2 + 11.9 for box in beside)


@pytest.mark.parametrize("case", SAMPLED)
def test_svg_is_xml_that_shows_every_state_and_operation(case: str):
    cell, kept = CASES[case]
    tree = ElementTree.fromstring(cell_svg(cell, kept, "a cell"))
    texts = Counter(node.text for node in tree.iter("{http://www.w3.org/2000/svg}text"))

    assert texts["a cell"] == 1
    assert texts["concat" if len(cell.outputs) > 1 else "output"] == 1
    assert all(texts[str(state)] == 1 for state in range(cell.inputs + cell.nodes))
    names = Counter()
    for (_, _, name), count in kept_operations(cell, kept).items():
        names[name] += count
    assert {name: texts[name] for name in names} == names
    assert texts.total() == 2 + 2 * cell.inputs + cell.nodes + names.total()


def test_inputs_stand_left_nodes_by_longest_path_and_the_output_right():
    layout = arranged(DARTS.groups["normal"], V2["normal"])
    layer = {box.text: box.layer for box in layout.boxes if box.role in ("input", "node", "output")}

    assert layer == {"0": 0, "1": 0, "2": 2, "3": 2, "4": 2, "5": 4, "concat": 5}
    left = {box.layer: box.x for box in layout.boxes}
    assert sorted(left.values()) == [left[k] for k in range(6)]


def test_output_of_the_last_node_has_one_arrow():
    layout = arranged(NASBENCH201, {"0-1": ("nor_conv_3x3",), "1-3": ("skip_connect",)})
    into = [layout.boxes[a].text for a, b, _ in layout.links if layout.boxes[b].role == "output"]

    assert into == ["3"]


def test_only_a_node_that_nothing_enters_is_faded():
    layout = arranged(NASBENCH201, {"0-1": ("nor_conv_3x3",), "1-3": ("skip_connect",)})

    assert [box.text for box in layout.boxes if box.kind == "faded"] == ["2"]


def test_none_is_not_drawn():
    layout = arranged(NASBENCH201, {"0-1": ("none",), "0-3": ("none", "skip_connect")})

    assert [box.text for box in layout.boxes if box.role == "label"] == ["skip_connect"]
    assert [box.text for box in layout.boxes if box.kind == "faded"] == ["1", "2"]


def test_noise_has_a_colour_of_its_own():
    cell = Cell(1, 1, complete_edges(1, 1, ["noise", "sep_conv_3x3"]), None)
    assert 'class="noise' in cell_svg(cell, {"0-1": ("noise",)}, "title")
    noise, conv = (cell_picture(cell, {"0-1": (name,)}, "title") for name in cell.edges[0].names)
    red = tuple(bytes.fromhex(LIGHT["noise"][0][1:]))
    assert (noise == red).all(-1).any()
    assert not (conv == red).all(-1).any()


GATES = {
    "0-1": {"nor_conv_3x3": 0.6, "skip_connect": 0.2},
    "1-3": {"nor_conv_3x3": 0.3, "skip_connect": 0.1},
}


def test_an_operation_shows_its_share_and_its_lines_are_as_wide_as_it_is_ahead():
    kept = {"0-1": ("nor_conv_3x3",), "1-3": ("skip_connect",)}
    layout = arranged(NASBENCH201, kept, "", GATES)
    shown = {box.text: box for box in layout.boxes if box.role == "label"}
    assert [shown[name].caption for name in ("nor_conv_3x3", "skip_connect")] == ["75%", "25%"]
    # ahead by 75% - 25%, and behind by as much
    assert shown["nor_conv_3x3"].line == pytest.approx(THIN + (THICK - THIN) * 0.5)
    assert shown["skip_connect"].line == THIN
    widths = {curve.width for curve in layout.curves()}
    assert widths == {LINE, THIN, shown["nor_conv_3x3"].line}
    svg = cell_svg(NASBENCH201, kept, "x", GATES)
    assert svg.count("stroke-width:3.1") == 2  # to the operation, and from it
    assert "50.0 points below the most that was dropped" in svg
    drawn, plain = (cell_picture(NASBENCH201, kept, "x", gates) for gates in (GATES, None))
    assert (drawn != plain).any()  # in pixels, too


@pytest.mark.parametrize("case", ["DARTS_V2-normal", "random-7"])
def test_with_shares_nothing_overlaps_either(case: str):
    cell, kept = CASES[case]
    gates = {row.name: dict.fromkeys(row.names, 1.0) for row in cell.rows}
    layout = arranged(cell, kept, "title", gates)
    shown = [box for box in layout.boxes if box.role != "lane"]
    for a, b in combinations(shown, 2):
        apart_x = a.x + a.width < b.x or b.x + b.width < a.x
        assert apart_x or abs(a.y - b.y) >= (a.height + b.height) / 2 + 11.9


def test_without_gates_nothing_is_said_of_shares():
    svg = cell_svg(NASBENCH201, {"0-1": ("nor_conv_3x3",)}, "x", {})
    assert "%<" not in svg
    assert 'style="stroke-width' not in svg


def test_text_is_escaped():
    name = "</text><script>\"&'\x00"
    cell = Cell(1, 1, (Edge(0, 1, (Option(name),)),), None, "last")
    svg = cell_svg(cell, {"0-1": (name,)}, f"<b>{name}")
    tree = ElementTree.fromstring(svg)
    texts = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]

    assert "<script" not in svg
    assert "<b>" not in svg
    assert "</text><script>\"&'\ufffd" in texts
    assert texts[0] == "<b></text><script>\"&'\ufffd"


def test_svg_needs_nothing_from_outside_and_knows_the_dark_scheme():
    svg = cell_svg(DARTS.groups["reduce"], V2["reduce"], "reduce")

    assert svg.count("http") == 1  # the name space
    assert "@media(prefers-color-scheme:dark)" in svg


def test_drawing_does_not_depend_on_the_order_of_what_is_kept():
    cell, kept = DARTS.groups["normal"], V2["normal"]
    assert cell_svg(cell, dict(reversed(kept.items())), "x") == cell_svg(cell, kept, "x")


def test_edge_of_another_cell_is_refused():
    with pytest.raises(
        ValueError, match="drawing: found edge '1-9', expected one of 0-1, 0-2, 1-2,"
    ):
        cell_svg(NASBENCH201, {"1-9": ("skip_connect",)}, "x")


def test_a_long_title_widens_the_card():
    layout = arranged(NASBENCH201, {}, "x" * 300)
    assert layout.width > 300 * 9
