"""The documentation: links lead somewhere, commands compose, code that is shown works."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.errors import HydraException

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
