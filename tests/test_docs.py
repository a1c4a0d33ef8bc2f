"""The documentation: links lead somewhere, commands compose, code that is shown works."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import OmegaConf

from archsmith.cli import naming

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LAUNCHERS = ("hydra/launcher=", "hydra.launcher.", "hydra/sweeper=", "hydra.sweeper.")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def commands() -> dict[str, str]:
    """What stands behind every `python run.py` of the pages, and a page where it does."""
    found = {}
    for page in PAGES:
        text = re.sub(r"<[^>\n]*>", "x", page.read_text().replace("\\\n", " "))
        for command in re.findall(r"""python run\.py((?: +(?:'[^'\n]*'|[^\s`'#")])+)*)""", text):
            found[command.strip()] = name(page)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name(page)}: {target}"
        if anchor and other.suffix == ".md":
            assert anchor in anchors(other), f"{name(page)}: {target}"


@pytest.mark.slow
def test_commands_of_the_documentation_compose(tmp_path: Path):
    """Placeholders stand for values; what a user's own files add is left out."""
    naming.register()
    Plugins.instance()
    found = commands()
    assert len(found) > 40
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        for command, page in found.items():
            if "--config-dir" in command or "..." in command or command.startswith("-sc"):
                continue
            words = [w for w in shlex.split(command) if "=" in w and not w.startswith(LAUNCHERS)]
            plain = [re.sub(r"=([^\[{(,]+),[^\[{(]*$", r"=\1", word) for word in words]
            plain = [re.sub(r"=(tag\(.*|interval\(.*|range\(.*)$", "=1", word) for word in plain]
            try:
                compose("config", overrides=plain)
            except HydraException as error:
                raise AssertionError(f"{page}: python run.py {command}: {error}") from error


def code(page: str, start: str) -> dict:
    """What a block of code of a page defines."""
    blocks = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    (block,) = [block for block in blocks if start in block]
    defined: dict = {}
    exec(compile(block, page, "exec"), defined)
    return defined


@pytest.mark.slow
def test_settings_in_the_tables_of_strategies_exist():
    naming.register()
    folder = ROOT / "docs" / "strategies"
    table = (folder / "README.md").read_text()
    listed = re.findall(r"^\| \[.+?\]\((\w+\.md)\) \| ([^|]+)\|", table, re.M)
    assert len(listed) > 20
    for page, names in listed:
        text = (folder / page).read_text()
        rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `strategy.")]
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
            found = [compose("config", [f"strategy={n}"]) for n in re.findall(r"`(\w+)`", names)]
        for setting in re.findall(r"`(strategy\.[\w.]+)`", " ".join(rows)):
            parent, _, last = setting.rpartition(".")
            known = [OmegaConf.select(one, parent) for one in found]
            assert any(one is not None and last in one for one in known), f"{page}: {setting}"


def test_the_operation_that_is_shown():
    blur = code("own_operations.md", "class Blur")["Blur"]
    for stride in (1, 2):
        net = blur(4, 6, stride, affine=False, search=True)
        assert net(torch.randn(2, 4, 8, 8)).shape == (2, 6, 8 // stride, 8 // stride)


def test_the_relaxation_that_is_shown():
    sparsemax = code("own_strategy.md", "class Sparsemax")["Sparsemax"]()
    alphas = torch.tensor([[0.5, 0.2, -2.0], [3.0, 0.0, 9.0], [1.0, 1.0, 1.0]], requires_grad=True)
    alive = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    gates, index = sparsemax(alphas, alive)
    assert index is None
    by_hand = torch.tensor([[0.65, 0.35, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(gates.detach(), by_hand)
    gates.sum().backward()
    assert torch.isfinite(alphas.grad).all()
    assert (alphas.grad[~alive] == 0).all()


def built_pages(folder: Path) -> list[Path]:
    """The site, built; skips without mkdocs."""
    for package in ("material", "latex2mathml"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[docs]'")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return sorted(folder.rglob("*.html"))


class Loaded(HTMLParser):
    """Addresses that a page loads by itself, and those that it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("src", "href") and value is not None:
                (self.links if tag == "a" else self.loads).append(value)


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path):
    """`--strict` refuses a link or anchor that leads nowhere and a page that is not in the menu."""
    pages = built_pages(tmp_path / "site")
    names = {str(page.relative_to(tmp_path / "site")) for page in pages}
    assert {"index.html", "docs/tutorial.html", "docs/gallery.html", "CONTRIBUTING.html"} <= names
    for page in pages:
        text = page.read_text()
        found = Loaded()
        found.feed(text)
        assert [one for one in found.loads if one.startswith(("http", "//"))] == []
        assert "arithmatex" not in text, page  # every formula was converted
        if page.name == "404.html":  # for a server: from its root
            continue
        for link in found.links:
            path = link.partition("#")[0]
            if path and not path.startswith(("http", "mailto")):
                assert (page.parent / path).exists(), f"{page}: {link}"


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        if page.parent.name != "upstream":
            assert f": {name(page)}\n" in menu, page


def test_the_gallery_shows_drawings_that_are_small():
    page = (ROOT / "docs" / "gallery.md").read_text()
    drawings = re.findall(r"\]\((gallery/[^)]+)\)", page)
    assert len(drawings) >= 10
    assert {f"gallery/{p.name}" for p in (ROOT / "docs" / "gallery").iterdir()} == set(drawings)
    assert sum((ROOT / "docs" / drawing).stat().st_size for drawing in drawings) < 150_000
    assert page.count("\npython run.py ") == page.count("\n## ")


def tutorial() -> list[dict]:
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_tutorial_is_stored_without_outputs():
    assert all(cell["outputs"] == [] for cell in tutorial())


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path):
    """Its cells in order, with the settings of tiny networks; at least half of the test images."""
    script = "\n".join("".join(cell["source"]) for cell in tutorial())
    tiny = [
        "space.layers=3", "space.nodes=2", "space.channels=8", "retrain.layers=3",
        "retrain.channels=8", "runtime.threads=1", "search.epochs=1",
    ]  # fmt: skip
    shown = "overrides=settings"
    assert script.count(shown) == 1
    script = script.replace(shown, f"overrides=[*settings, *{tiny}]")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    accuracy, *_, last = done.stdout.splitlines()
    assert float(accuracy.partition("%")[0]) > 50
    assert re.fullmatch(r"\d is \d", last)
