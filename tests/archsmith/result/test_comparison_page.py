"""The comparison's page: what it holds, where it leads, and what a browser makes of it."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from made_runs import add

from archsmith.data.benchmark import Benchmark
from archsmith.result.compare import compare

BROWSERS = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
BROWSER = next((path for path in BROWSERS if path), None)
CELL = '<svg class="archsmith-cell" viewBox="0 0 9 9"><title>{}</title></svg>'
PLAIN = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three strategies of five seeds, two of another length, with all that a page can show."""
    runs = tmp_path / "some runs"
    for seed in range(5):
        for strategy, base in (("random", 60.0), ("darts", 85.0), ("<pc&darts>", 84.5)):
            true = base + seed
            path = add(
                runs, strategy, seed, 0.5, parameters=50_000 + 1000 * seed * seed,
                benchmark={"accuracy": true, "best": 94.0, "accuracy_by_epoch": [55.0, true]},
            )  # fmt: skip
            results = json.loads((path / "results.json").read_text())
            results |= {"test_accuracy": None, "cpu_seconds": {"search": 20.0}}
            results["macs"] = 10**6 + 10**5 * seed
            results["budget"] = {"latency": {"median": 0.5 + 0.1 * seed}}
            (path / "results.json").write_text(json.dumps(results))
            (path / "metrics.jsonl").write_text('{"phase": "search", "seconds": 1.5}\n' * 2)
            (path / "report.html").write_text("")
            for name in ("a", "b", "c"):
                (path / f"cell_{name}.svg").write_text(CELL.format(f"{strategy[0]} {seed} {name}"))
    for seed, lr in enumerate([0.1, 0.1, 0.1, 0.123456789, 0.123456789, 0.123456789]):
        add(runs, "darts", seed, 0.5 + lr, lr=lr, searched=9)
    add(runs, "gdas", 0, None)
    table = tmp_path / "table.csv"
    lines = [f"{PLAIN},94.0", *(f"a{i},{i}" for i in range(50, 90))]
    table.write_text("architecture,cifar10\n" + "\n".join(lines) + "\n")
    return runs


@pytest.fixture
def page(folder: Path) -> str:
    table = Benchmark(str(folder.parent / "table.csv"), "cifar10", 2)
    compare(folder, table)
    return (folder / "compare.html").read_text()


class Balanced(HTMLParser):
    """Checks that what opens closes; keeps the text of tables, row by row."""

    VOID = ("meta", "br", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & {*self.open} and "svg" not in self.open:
            self.rows[-1][-1] += data


def read(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_needs_no_network(page: str):
    read(page)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.findall(r'src="', page)
    assert "<pre" not in page
    assert "<pc&darts>" not in page
    assert "<li>gdas-0-</li>" in page


def test_the_verdict_and_the_table_say_the_same(page: str):
    """5 above 5: p = 2 / C(10, 5), times three tests; the median shift from random."""
    said = page.split('id="part1"')[1].split('<p class="verdict">')[1]
    assert said.startswith(
        "darts and &lt;pc&amp;darts&gt; are better than drawing from the table&#39;s 41"
    )
    assert (
        "darts and &lt;pc&amp;darts&gt; are better than random (rank test, corrected p at most "
        "0.024). &lt;pc&amp;darts&gt; cannot be distinguished from darts."
    ) in said
    rows = [row for row in read(page).rows if row[:2] == ["darts", "5"]]
    assert [text.strip() for text in rows[0][:7]] == [
        "darts", "5", "87.00", "85.80 to 88.20", "", "87.00", "+25.00 p = 0.024"
    ]  # fmt: skip
    assert rows[0][-4:] == ["54,000", "1,200,000", "0.7", "20"]


def test_links_lead_to_reports_from_where_the_page_is(folder: Path, page: str):
    links = {unquote(unescape(link)) for link in re.findall(r'href="([^"#]+)"', page)}
    assert len(links) == 15
    assert all((folder / link).is_file() for link in links)


def test_every_run_is_a_dot_of_every_chart_with_its_name(page: str):
    part = page.split('id="part1"')[1].split('id="part2"')[0]
    charts = re.findall(r'<svg[^>]*class="chart".*?</svg>', part, flags=re.S)
    titles = [re.findall(r"<title>([^<]*)</title>", chart)[0] for chart in charts]
    assert titles == [
        "every seed", "true accuracy over the search", "accuracy and parameters",
        "accuracy and multiply-accumulates", "accuracy and latency, ms",
    ]  # fmt: skip
    for chart in (charts[0], *charts[2:]):
        assert len(re.findall(r'class="run( best)?"', chart)) == 15
        assert "<title>darts, seed 3: 88.00%\ndarts-3-" in chart
    # random is cheapest with darts, and always less accurate: five on the front, all of darts
    assert len(re.findall('class="run best"', charts[2])) == 5
    assert "parameters: 66,000</title>" in charts[2]
    assert charts[1].count('class="band"') == 3


def test_the_cells_are_of_the_best_run_and_not_all_of_them(page: str):
    assert re.findall(r'cell" viewBox="0 0 9 9"><title>(.*?)</title>', page) == [
        "d 4 a", "d 4 b", "< 4 a", "< 4 b", "r 4 a", "r 4 b",
    ]  # fmt: skip
    assert page.count("1 more in its report") == 3


def test_the_settings_explain(folder: Path, page: str):
    part = page.split('id="settings">')[1].split("</table>")[0]
    parser = Balanced()
    parser.feed(part.split("</h2>")[1] + "</table></div>")
    rows = {row[0]: row for row in parser.rows[1:]}
    assert set(rows) == {"strategy.lr", "seed"}
    assert rows["strategy.lr"][4].startswith("0.1: ")


def results_of(path: Path, **facts: object) -> None:
    """Sets facts of a run."""
    results = json.loads((path / "results.json").read_text()) | facts
    (path / "results.json").write_text(json.dumps(results))


def test_test_accuracies_are_not_compared_with_the_table(folder: Path, page: str):
    """Its chances are those of the accuracies that were looked up."""
    assert ">chance if random</th>" in page
    for path in folder.iterdir():
        if path.is_dir() and "gdas" not in path.name:
            results_of(path, test_accuracy=0.9)
    compare(folder, Benchmark(str(folder.parent / "table.csv"), "cifar10", 2))
    page = (folder / "compare.html").read_text()
    assert "chance if random" not in page
    assert "are better than drawing" not in page
    assert "takes no search" not in page
    assert "<h3>Without a search</h3>" in page


def test_a_strategy_has_one_colour_in_all_parts(tmp_path: Path):
    for epochs, better in ((3, "darts"), (6, "pcdarts")):
        for strategy in ("darts", "pcdarts"):
            add(tmp_path, strategy, 0, 0.5 + 0.1 * (strategy == better), searched=epochs)
    compare(tmp_path, Benchmark(None, "cifar10", 2))
    page = (tmp_path / "compare.html").read_text()
    found = re.findall(r'class="who" style="--c:(#\w+)" title="(\w+)"', page)
    assert len(found) == 8  # strategies and runs of two parts
    assert len({*found}) == 2


def test_the_anytime_chart_has_strategies_whose_runs_all_have_a_history(folder: Path, page: str):
    assert page.count("median of 5 runs") == 3
    next(folder.glob("random-4*/metrics.jsonl")).unlink()
    compare(folder, Benchmark(str(folder.parent / "table.csv"), "cifar10", 2))
    assert (folder / "compare.html").read_text().count("median of 5 runs") == 2


def test_of_many_groups_the_highest_means_have_dots(tmp_path: Path):
    for i in range(45):
        add(tmp_path, "darts", 0, 0.5 + 0.01 * i, lr=i, parameters=1000 + i)
    compare(tmp_path, Benchmark(None, "cifar10", 2))
    page = (tmp_path / "compare.html").read_text()
    dots, parameters = page.split('<svg xmlns="http://www.w3.org/2000/svg" class="chart"')[1:]
    assert (dots.count('class="run'), parameters.count('class="run')) == (40, 45)
    assert "The 40 highest means." in page
    assert "seed 0: 94.00%" in dots
    assert "seed 0: 54.00%" not in dots


def test_a_part_without_accuracies_says_so(tmp_path: Path):
    path = add(tmp_path, "random", 0, 0.5)
    results = json.loads((path / "results.json").read_text()) | {"test_accuracy": None}
    (path / "results.json").write_text(json.dumps(results))
    compare(tmp_path, Benchmark(None, "cifar10", 2))
    page = (tmp_path / "compare.html").read_text()
    read(page)
    assert "No run has an accuracy to compare." in page
    assert "no network was trained: random" in page


def test_unfinished_runs_alone_give_a_page(tmp_path: Path):
    add(tmp_path, "gdas", 0, None)
    compare(tmp_path, Benchmark(None, "cifar10", 2))
    page = (tmp_path / "compare.html").read_text()
    read(page)
    assert "No run is finished." in page
    assert "<li>gdas-0-</li>" in page


PROBE = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message));
console.error = (...said) => errors.push(said.join(" "));
const channels = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const paper = node => {
  for (; node; node = node.parentElement) {
    const found = channels(getComputedStyle(node).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  const cut = [], faint = [];
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode()) {
    const text = nodes.currentNode, parent = text.parentElement;
    if (!text.data.trim() || parent.closest("script,style,title")) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    const box = range.getBoundingClientRect(), drawing = parent.closest("svg");
    if (!box.width) continue;
    const frame = (drawing ?? document.documentElement).getBoundingClientRect();
    if (!parent.closest(".scroll") && (box.left < frame.left - 1 || box.right > frame.right + 1))
      cut.push(text.data);
    const style = getComputedStyle(parent);
    const both = [channels(drawing ? style.fill : style.color), paper(parent)].map(light).sort();
    if ((Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5) faint.push(text.data);
  }
  const table = document.querySelector("table.sortable");
  const column = i => [...table.tBodies[0].rows].map(row => row.cells[i].textContent);
  const click = i => (table.tHead.rows[0].cells[i].querySelector("button").click(), column(i));
  const names = column(0);
  const order = [click(2), click(2), click(0), click(6)];
  dispatchEvent(new Event("resize"));
  const boxes = [...document.querySelectorAll(".scroll")];
  const scrolling = boxes.map(box => box.scrollWidth > box.clientWidth + 1);
  const hints = boxes.map(box => getComputedStyle(box.previousElementSibling).display === "block");
  document.title = JSON.stringify({ errors, cut, faint, names, order, scrolling, hints });
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "scheme"), [(390, 1), (1280, 0)])
def test_a_browser_shows_and_sorts_it(page: str, tmp_path: Path, width: int, scheme: int):
    """On a narrow light screen and a wide dark one. A window has at least 500 pixels, hence the
    width of the page is set."""
    measured = tmp_path / "measured.html"
    narrow = f"<style>html{{width:{width}px}}</style>"
    measured.write_text(page.replace("<body>", f"<body>{narrow}{PROBE}"))
    found = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,900",
            f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=2000",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", measured.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", found.stdout)
    assert title is not None
    seen = json.loads(unescape(title[1]))
    assert {key: seen[key] for key in ("errors", "cut", "faint")} == {
        "errors": [], "cut": [], "faint": []
    }  # fmt: skip
    assert seen["names"] == ["darts", "<pc&darts>", "random"]
    assert seen["order"] == [
        ["62.00", "86.50", "87.00"],
        ["87.00", "86.50", "62.00"],
        ["<pc&darts>", "darts", "random"],
        ["+25.00 p = 0.024", "+24.50 p = 0.024", ""],
    ]
    assert seen["hints"] == seen["scrolling"], "where a table scrolls, it says so, and only there"
    assert any(seen["hints"]) or width > 390
