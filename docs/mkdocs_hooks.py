"""Hooks of mkdocs: the pages with the files that they link to, in one folder with the repository's
layout; the tutorial as a page; formulas as MathML, which browsers show without a script."""

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs", "benchmarks")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_config(config: Any) -> Any:
    """Stages the pages beside the site; called once for a build."""
    staged = Path(config["site_dir"]).with_name("pages")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in PAGES:
        source, copy = ROOT / name, staged / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text("utf-8"))
    (staged / "docs" / "tutorial.md").write_text(as_markdown(notebook), "utf-8")
    config["docs_dir"] = str(staged)
    return config


def as_markdown(notebook: dict[str, Any]) -> str:
    """The cells of a notebook as a page."""
    cells = (("".join(cell["source"]), cell["cell_type"]) for cell in notebook["cells"])
    return "\n\n".join(f"```py\n{text}\n```" if kind == "code" else text for text, kind in cells)


def on_page_content(content: str, **_: Any) -> str:
    """The HTML of a page, with MathML in place of TeX."""
    from latex2mathml.converter import convert

    def written(formula: re.Match[str]) -> str:
        display = "block" if formula[1] == "div" else "inline"
        return convert(html.unescape(formula[2]).strip(), display=display)

    return FORMULA.sub(written, content)
