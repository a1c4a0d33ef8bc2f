"""The report of a run: what is drawn, that it is self-contained, and what a browser makes of it."""

import base64
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import BROWSER, seen_by_a_browser

from archsmith.data.loader import Normalise
from archsmith.drawing.cells import cell_svg
from archsmith.drawing.render import chart
from archsmith.result.limits import budget_line
from archsmith.result.mistakes import Mistakes
from archsmith.result.report.found_cells import heat_map
from archsmith.result.report.gates import gates_of
from archsmith.result.report.page import write_report
from archsmith.train.record import RESULTS
from search_spaces.cells import Cell, complete_edges

PLAIN = Normalise(torch.tensor([0.5]), torch.tensor([0.25]))
EDGES = ("0-1", "0-2", "1-2")
MEASURED = (
    "train_accuracy", "train_loss", "val_accuracy", "val_loss", "supernet_accuracy",
    "supernet_loss", "discretised_accuracy", "gate_entropy", "gate_margin", "nones",
    "alpha_eigenvalue", "weight_sharpness",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of three epochs, by hand."""
    results = dict.fromkeys(RESULTS) | {
        "strategy": "darts", "space": "toy", "data": "<digits>", "seed": 3, "test_accuracy": 0.5,
        "supernet_accuracy": 0.75, "discretised_accuracy": 0.25, "parameters": 1234, "macs": 5678,
        "diagnosis": {"discretisation_gap": 0.5}, "seconds": {"search": 1.5}, "test_reads": 1,
        "peak_memory_bytes": {"search": 2**20}, "device": "cpu", "versions": {"torch": "2.15"},
        "degenerate": "collapse: all skips", "undecided": "close to a draw",
        "warnings": ["search: close to a draw", "baseline_resnet18: not learning"],
        "test_interval": [0.4, 0.6], "test_images": 96, "test_doubt": "answers 'x' for all",
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3, "note": "</pre><b>&"}))
    lines = [
        {"phase": "search", "step": e, "train_loss": 2.0 - e, "train_accuracy": 0.1 * e}
        for e in range(3)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "gates").mkdir()
    for e in range(3):
        table = {"cell": {edge: {"none": 0.5 - 0.1 * e, "skip": 0.5 + 0.1 * e} for edge in EDGES}}
        (tmp_path / "gates" / f"epoch_{e:03d}.json").write_text(json.dumps(table))
    write_cells(tmp_path, {"cell": {"0-1": ("skip",)}})
    layers = [
        {"layer": "stem", "shape": [4, 8, 8], "parameters": 40, "macs": 4096, "choices": []},
        {"layer": "layers.0", "shape": [4, 8, 8], "parameters": 7, "macs": 0, "choices": ["cell"]},
        {"layer": "head", "shape": [10], "parameters": 50, "macs": 1582, "choices": []},
    ]
    told = {"input": [1, 8, 8], "layers": layers, "repeats": {"cell": 3}}
    (tmp_path / "layers.json").write_text(json.dumps(told))
    return tmp_path


def write_cells(folder: Path, kept: dict[str, dict[str, tuple[str, ...]]]) -> None:
    """An architecture with these choices, and a drawing of each with its last gates."""
    cell = Cell(1, 2, complete_edges(1, 2, ["none", "skip"]), None, "last")
    gates = gates_of(folder, None)
    for name, rows in kept.items():
        svg = cell_svg(cell, rows, f"{name} cell", gates.get(name))
        (folder / f"cell_{name}.svg").write_text(svg)
    about = {"choices": kept, "meta": {"epoch": 2}}
    (folder / "architecture.json").write_text(json.dumps(about))


class Balanced(HTMLParser):
    """Checks that what opens closes."""

    VOID = ("meta", "br", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_whole_and_needs_no_network(folder: Path):
    page = write_report(folder, "python run.py seed=3").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.findall(r'(?:src|href)="', page)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert "<script" not in page
    for shown in (
        "<b>50.0%</b>", "<b>75.00%</b>", "<b>25.00%</b>", "1,234", "5,678",
        "collapse: all skips", "close to a draw", "answers &#39;x&#39; for all",
        "classifies 50.0% of the 96 test images right (95% interval 40.0 to 60.0%).",
        "<li>baseline_resnet18: not learning</li>",
        "<h1>DARTS strategy, TOY space, &lt;digits&gt;, seed 3</h1>",
    ):  # fmt: skip
        assert shown in page
    assert "&lt;digits&gt;" in page
    assert "</pre><b>" not in page
    assert page.count("python run.py seed=3") == 1
    assert page.count("close to a draw") == 1


def charts_of(page: str) -> list[str]:
    return re.findall(r'<svg[^>]*class="chart".*?</svg>', page, flags=re.S)


def test_every_edge_has_a_chart_with_a_line_per_candidate(folder: Path):
    page = write_report(folder, "").read_text()
    of_edges = [one for one in charts_of(page) if any(f"<title>{edge}<" in one for edge in EDGES)]
    assert len(of_edges) == 3
    assert all(one.count('class="line"') == 2 for one in of_edges)
    assert "<summary>how each gate moved over the epochs</summary>" in page


def test_a_quantity_has_one_colour_in_all_charts_and_legends(folder: Path):
    lines = [
        {"phase": phase, "step": e, **dict.fromkeys(MEASURED, 0.1 * e), "pools": e, "skips": 0}
        for phase in ("search", "retrain")
        for e in range(3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(folder, "").read_text()
    colours: dict[str, set[str]] = {}
    found = re.findall(r'<i style="background:(#\w+)"></i>([^<]+)<', page)
    for one in charts_of(page):
        found += re.findall(r'stroke:(#\w+)"><title>([^<]+)<', one)
    for colour, name in found:
        colours.setdefault(name, set()).add(colour)
    assert {"train", "supernet, held-out", "validation", "pools", "skip"} <= set(colours)
    assert all(len(own) == 1 for own in colours.values()), colours
    of_metrics = [own for name, own in colours.items() if name not in ("none", "skip")]
    assert len(set.union(*of_metrics)) == len(of_metrics) - 1  # "val (alphas)", "validation"


def test_axes_are_named_and_values_show_under_the_pointer(folder: Path):
    page = write_report(folder, "").read_text()
    (accuracy,) = [one for one in charts_of(page) if "<title>accuracy<" in one]
    assert re.search(r'<text class="tick" x="[\d.]+" y="\d+">epoch</text>', accuracy)
    assert re.search(r'rotate\(-90\)">share right</text>', accuracy)
    assert "<title>epoch 3\ntrain 20.00%</title>" in accuracy
    assert re.findall(r'y="\d+">(\d)</text>', accuracy) == ["1", "2", "3"]


def test_the_gates_are_a_heat_map_with_what_was_kept_outlined(folder: Path):
    page = write_report(folder, "").read_text()
    (table,) = re.findall(r'<table class="shares">.*?</table>', page, flags=re.S)
    assert "cell: shares of the gates after epoch 3" in page
    assert re.findall(r'<th class="up">(\w+)<', table) == ["none", "skip"]
    assert re.findall(r'<th class="row">([^<]+)<', table) == list(EDGES)
    assert re.findall(r">(\d+%)<", table) == ["30%", "70%"] * 3
    (kept,) = re.findall(r'<td class="kept" style="--share:([\d.]+)" title="([^"]+)"', table)
    assert kept == (
        f"{0.7**0.5:.2f}",
        "skip on 0-1: 70.0% of the gates, 40.0 points above the most that was dropped",
    )


def test_the_map_is_of_the_epoch_of_the_architecture(folder: Path):
    (folder / "architecture.json").write_text(json.dumps({"choices": {}, "meta": {"epoch": 0}}))
    page = write_report(folder, "").read_text()
    assert "cell: shares of the gates after epoch 1" in page
    assert "%</td>" in page
    assert ">50%</td>" in page
    assert ">70%</td>" not in page


def test_rows_with_options_of_their_own_have_columns_without_names():
    table = {f"{r}-{r + 1}": {f"op_{r}_{o}": 1.0 for o in range(4)} for r in range(8)}
    found = heat_map("layers", table, {"0-1": ["op_0_2"]})
    assert found.names == []
    assert [len(tiles) for tiles in found.rows.values()] == [4] * 8
    assert [tile.kept for tile in found.rows["0-1"]] == [False, False, True, False]
    few = heat_map("cell", {"0-1": {"a": 1.0}, "0-2": {"b": 3.0, "a": 1.0}}, {})
    assert few.names == ["a", "b"]
    assert [tile and tile.share.share for tile in few.rows["0-1"]] == [1, None]
    assert [tile.share.share for tile in few.rows["0-2"]] == [0.25, 0.75]


def test_equal_cells_are_drawn_once_with_their_number_of_layers(folder: Path):
    for path in folder.glob("cell_*.svg"):
        path.unlink()
    for path in (folder / "gates").iterdir():  # the gates differ, what is kept does not
        rows = {edge: {"none": 0.4, "skip": 0.6} for edge in EDGES}
        other = {edge: {"none": 0.9, "skip": 0.1} for edge in EDGES}
        path.write_text(json.dumps({"00_a": rows, "01_b": other, "02_a": rows}))
    alike, apart = {"0-1": ("skip",)}, {"0-2": ("skip",)}
    write_cells(folder, {"00_a": alike, "01_b": alike, "02_a": apart})
    page = write_report(folder, "").read_text()
    assert re.findall(r'<text class="plain title"[^>]*>([^<]+)<', page) == [
        "00_a cell × 2", "02_a cell",
    ]  # fmt: skip
    assert "The same cell: 00_a, 01_b." in page
    assert page.count('<table class="shares">') == 3


def test_a_cell_that_layers_share_is_counted(folder: Path):
    page = write_report(folder, "").read_text()
    assert page.count("cell cell × 3") == 2  # the title, and what shows under the pointer
    assert (folder / "cell_cell.svg").read_text().count("×") == 0


def test_the_network_is_a_strip_of_layers(folder: Path):
    page = write_report(folder, "").read_text()
    (strip,) = re.findall(r'<ol class="strip">.*?</ol>', page, flags=re.S)
    assert re.findall(r"<b>([^<]+)</b>", strip) == ["image", "stem", "layers.0", "head"]
    for shown in ("1 × 8 × 8", "4 × 8 × 8", "4,096 MACs", "40 parameters", "width:72.1%"):
        assert shown in strip
    (folder / "layers.json").unlink()
    assert "The whole network" not in write_report(folder, "").read_text()


def test_a_training_without_validation_says_so(folder: Path):
    line = {"phase": "retrain", "step": 0, "train_loss": 1.0, "train_accuracy": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert "there is no validation curve" in write_report(folder, "").read_text()
    (folder / "metrics.jsonl").write_text(json.dumps(line | {"val_accuracy": 0.25}) + "\n")
    page = write_report(folder, "").read_text()
    assert "there is no validation curve" not in page
    assert "validation 25.00%" in page


def test_the_checklist_has_marks(folder: Path):
    page = write_report(folder, "").read_text()
    (checks,) = re.findall(r'<ul class="checks">.*?</ul>', page, flags=re.S)
    marks = re.findall(r'<span class="mark (\w+)">(.)<', checks)
    assert set(marks) == {("yes", "✓"), ("no", "–"), ("ask", "?")}
    assert len(marks) == 10


def add_baseline(folder: Path, name: str, **more: Any) -> None:
    rival = {"test_accuracy": 0.45, "test_interval": [0.35, 0.55], "parameters": 9, "macs": 9}
    results = json.loads((folder / "results.json").read_text())
    results["baseline"] = {name: rival | more}
    (folder / "results.json").write_text(json.dumps(results))


def test_other_networks_stand_beside_it_with_their_intervals(folder: Path):
    add_baseline(folder, "random_0", drawn={})
    page = write_report(folder, "").read_text()
    assert "random_0 45.00%, 95% interval 35.00 to 55.00%" in page
    assert "found 50.00%, 95% interval 40.00 to 60.00%" in page
    assert "trained alike, reaches 45.0% (n = 1)" in page
    add_baseline(folder, "random_0", drawn={}, test_interval=None)  # of an older run
    page = write_report(folder, "").read_text()
    assert "<title>random_0 45.00%</title>" in page
    assert "random_0 45.00%, 95%" not in page


def test_a_folder_without_search_or_retraining_leaves_those_parts_out(folder: Path):
    (folder / "metrics.jsonl").unlink()
    shutil.rmtree(folder / "gates")
    page = write_report(folder, "").read_text()
    assert "The search, epoch by epoch" not in page
    assert "how each gate moved" not in page
    assert "shares of the gates" not in page
    assert "Training the found network" not in page


def test_it_shows_where_the_network_is_wrong(folder: Path):
    wrong = Mistakes(["<cat>", "dog"], PLAIN, lambda position: f"test/{position}.png")
    shares = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    wrong.add(torch.zeros(3, 1, 4, 4), torch.tensor([0, 0, 1]), shares.log())
    wrong.save(folder)
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | {"test_mistakes": wrong.told()}))
    page = write_report(folder, "run").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert all(
        src.startswith("data:image/png") for src in re.findall(r'(?:src|href)="([^"]+)', page)
    )
    (shown,) = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="test/0.png">', page)
    assert base64.b64decode(shown) == (folder / "mistakes" / "00.png").read_bytes()
    assert "Most often mistaken: &lt;cat&gt; for dog (1 of 2)." in page
    assert "&lt;cat&gt;, taken for dog (90%)" in page
    assert page.index("<td>&lt;cat&gt;</td><td>2</td><td>50.00%</td>") < page.index(
        "<td>dog</td><td>1</td><td>100.00%</td>"
    )
    matrix = page.split('class="confusion"')[1].split("</table>")[0]
    assert re.findall(r"<td[^>]*>(\d*)</td>", matrix) == ["1", "1", "", "1"]


@pytest.mark.parametrize(("choice", "row"), [("choice", "row"), ("group", "edge")])
def test_rows_changed_for_a_budget_are_listed_also_of_older_runs(
    choice: str, row: str, folder: Path
):
    """Until 0.1.0 a choice was written as `group` and a row as `edge`."""
    changed = {choice: "reduce", row: "1-3", "was": {"sep_conv_3x3": 0.4}, "is": {"none": 0.3}}
    told = {"limits": {"params": 10}, "cost": {"params": 9}, "given_up": [changed]}
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | {"budget": told}))
    page = write_report(folder, "run").read_text()
    assert "<td>reduce 1-3</td>" in page
    assert budget_line(told) == "budget: 9 of 10 parameters; 1 row changed for it"
    told["given_up"].append(changed)
    assert budget_line(told).endswith("; 2 rows changed for it")


def test_points_stand_where_their_values_say():
    series = {"a": [0.0, None, 1.0]}
    drawing = ET.fromstring(
        chart("line_chart", "t", series, width=258, height=252, limits=(0.0, 1.0))
    )
    namespace = {"s": "http://www.w3.org/2000/svg"}
    lines = drawing.findall("s:path[@class='line']", namespace)
    assert [line.get("d") for line in lines] == ["M46.0 228.0M246.0 28.0"]
    ticks = [t.text for t in drawing.findall("s:text[@class='tick end']", namespace)]
    assert ticks == ["0", "0.25", "0.5", "0.75", "1"]


@pytest.mark.parametrize("values", [[], [None], [float("nan")], [3.0], [1e-9, 1e9], [-5.0, -5.0]])
def test_any_values_give_a_chart(values: list[float | None]):
    ET.fromstring(chart("line_chart", "t", {"a": values}))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_all_of_it_on_narrow_and_wide_screens(
    folder: Path, tmp_path: Path, dark: bool
):
    add_baseline(folder, "mobilenet_v3_small_full", match="full", ratio=31.0, width=1.0)
    page = write_report(folder, "python run.py " + "strategy.weight_optimizer.lr=0.1 " * 5)
    seen, log = seen_by_a_browser(page, tmp_path, dark=dark)
    assert set(seen) == {390, 1280}
    assert "CONSOLE" not in log
    for width, one in seen.items():
        assert one["dark"] is dark
        assert one["over"] <= 0, f"{width}: it scrolls sideways"
        for fault in ("errors", "cut", "faint", "silent"):
            assert one[fault] == [], (width, fault)
        assert one["texts"] > 150
        assert (one["drawn"], one["charts"], one["cells"]) == (10, 6, 1)
    assert seen[390]["scrolls"] > seen[1280]["scrolls"]


PLANTED = """<style>.wide::before{display:none!important}</style><div>
<p style="white-space:nowrap;width:9em;overflow:hidden">
longer than its paragraph, which clips it</p>
<p style="position:absolute;left:-3em">beyond the left edge</p>
<svg viewBox="0 0 100 20" width="100"><text x="60" y="15">out of its drawing</text></svg>
<p style="color:#999">faint on paper</p>
<div class="wide"><div style="width:2000px">wide without a hint</div></div>
<svg width="200" height="30"><rect width="200" height="30" fill="#0000ff"/>
<text y="20" fill="#000">faint on blue</text></svg>
</div><script>undefined_name()</script>"""  # fmt: skip


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_browser_test_sees_planted_faults(folder: Path, tmp_path: Path):
    page = write_report(folder, "python run.py")
    page.write_text(page.read_text().replace("<body>", f"<body>{PLANTED}"))
    seen, log = seen_by_a_browser(page, tmp_path, dark=False)
    narrow = seen[390]
    assert narrow["cut"] == [
        "\nlonger than its paragraph, which clips it", "beyond the left edge", "out of its drawing",
    ]  # fmt: skip
    assert [text for text, _ in narrow["faint"]] == ["faint on paper", "faint on blue"]
    assert [text.partition(": ")[2] for text in narrow["silent"]] == ["wide without a hint"]
    assert "undefined_name is not defined" in log
    assert any("undefined_name" in line for line in narrow["errors"])
