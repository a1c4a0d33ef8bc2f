"""The report of a run: what is drawn, that it is self-contained, and what a browser makes of it."""

import base64
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from archsmith.data.loader import Normalise
from archsmith.drawing.cells import cell_svg
from archsmith.drawing.render import chart
from archsmith.result.limits import budget_line
from archsmith.result.mistakes import Mistakes
from archsmith.result.report.page import write_report
from archsmith.train.record import RESULTS
from search_spaces.cells import Cell, complete_edges

PLAIN = Normalise(torch.tensor([0.5]), torch.tensor([0.25]))
EDGES = ("0-1", "0-2", "1-2")
BROWSERS = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
BROWSER = next((path for path in BROWSERS if path), None)


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
    cell = Cell(1, 2, complete_edges(1, 2, ["none", "skip"]), None, "last")
    (tmp_path / "cell_cell.svg").write_text(cell_svg(cell, {"0-1": ("skip",)}, "cell"))
    return tmp_path


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
    for shown in ("50.00%", "75.00%", "25.00%", "1,234", "5,678",
        "collapse: all skips",
        "close to a draw", "answers &#39;x&#39; for all",
        "40.00% to 60.00%, 96 images", "<li>baseline_resnet18: not learning</li>",
    ):  # fmt: skip
        assert shown in page
    assert "&lt;digits&gt;" in page
    assert "</pre><b>" not in page
    assert page.count("python run.py seed=3") == 1
    assert page.count("close to a draw") == 1


def test_every_edge_has_a_chart_with_a_line_per_candidate(folder: Path):
    page = write_report(folder, "").read_text()
    charts = re.findall(r'<svg[^>]*class="chart".*?</svg>', page, flags=re.S)
    of_edges = [chart for chart in charts if any(f"<title>{edge}<" in chart for edge in EDGES)]
    assert len(of_edges) == 3
    assert all(chart.count('class="line"') == 2 for chart in of_edges)


def test_a_folder_without_search_or_retraining_leaves_those_parts_out(folder: Path):
    (folder / "metrics.jsonl").unlink()
    shutil.rmtree(folder / "gates")
    page = write_report(folder, "").read_text()
    assert "The search, epoch by epoch" not in page
    assert "How each gate moved" not in page
    assert "Retraining" not in page


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
def test_a_browser_draws_it_on_a_narrow_screen_without_overflow(folder: Path, tmp_path: Path):
    page = write_report(folder, "python run.py")
    measured = tmp_path / "measured.html"
    probe = (
        "<script>onload=()=>{const b=s=>[...document.querySelectorAll(s)]"
        ".map(e=>e.getBoundingClientRect());"
        "const drawn=b('.chart .line').filter(r=>r.width>20).length;"
        "document.title=JSON.stringify({drawn,charts:b('.chart').filter(r=>r.height>60).length,"
        "cells:b('.archsmith-cell').filter(r=>r.width>80).length,"
        "over:document.documentElement.scrollWidth-innerWidth})}</script>"
    )
    measured.write_text(page.read_text().replace("</body>", probe + "</body>"))
    found = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom",
            measured.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", found.stdout)
    assert title is not None
    seen = json.loads(title[1].replace("&quot;", '"'))
    assert seen.pop("over") <= 0, "it scrolls sideways"
    assert seen == {"drawn": 8, "charts": 5, "cells": 1}
