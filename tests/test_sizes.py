"""Functions are short enough to be read at once."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "supernets", "strategies", "archsmith", "hydra_plugins")
MOST_LINES = 40


def test_no_function_is_above_40_lines():
    long = [
        f"{file.relative_to(ROOT)}: {node.name} has {lines} lines"
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES
    ]
    assert long == []
