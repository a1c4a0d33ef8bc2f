"""Functions are short enough to be read at once, and take few enough arguments to be called."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "supernets", "strategies", "archsmith", "hydra_plugins")
MOST_LINES = 40
MOST_ARGUMENTS = 8
NAMED_ELSEWHERE = {  # the signature of an operator of torch; the settings of a space
    ("archsmith/result/export/onnx_form.py", "batch_norm"),
    ("search_spaces/transformers.py", "vit"),
}


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """(file, function) of the packages, methods and inner functions included."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    yield file.relative_to(ROOT).as_posix(), node


def arguments(node: ast.FunctionDef) -> int:
    """How many, `self` not counted."""
    names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_no_function_is_above_40_lines():
    long = [
        f"{file}: {node.name} has {lines} lines"
        for file, node in functions()
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES
    ]
    assert long == []


def test_no_function_takes_more_than_8_arguments():
    many = {(file, node.name) for file, node in functions() if arguments(node) > MOST_ARGUMENTS}
    assert many == NAMED_ELSEWHERE
