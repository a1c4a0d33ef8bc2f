"""Names that are not UTF-8, of another Unicode form, or not in the terminal's encoding (C5)."""

import io
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archsmith.cli.streams import check_words, escape_output
from archsmith.data.image_tree import scan
from archsmith.data.names import canonical, printable
from archsmith.data.preprocessing import Preprocessing
from archsmith.data.survey import survey
from archsmith.errors import ConfigError

COMPOSED, DECOMPOSED = "gr\u00fcn", "gru\u0308n"
NO_UTF8 = os.fsdecode(b"caf\xe9")


def folder(root: Path, **classes: tuple[str, ...]) -> Path:
    """root/<part>/<class> with two images each, and one whose name is not UTF-8."""
    for part, names in classes.items():
        for name in names:
            place = root / part / name
            place.mkdir(parents=True)
            for file in ("0", "1", NO_UTF8):
                image = Image.fromarray(np.full((4, 4), len(name), np.uint8))
                image.save(place / f"{file}.png")
    return root


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (NO_UTF8, r"caf\xe9"),
        ("a\nb\x1b[31m\u2028", r"a\nb\x1b[31m\u2028"),
        (
            "\u0645\u06cc\u200c\u0631\u0648\u0645 \U0001f63a",
            "\u0645\u06cc\u200c\u0631\u0648\u0645 \U0001f63a",
        ),
        (os.fsdecode(COMPOSED.encode()), COMPOSED),
    ],
)
def test_c5_a_name_is_shown_in_one_line_of_utf_8(name: str, shown: str):
    assert printable(name) == shown
    shown.encode()


def test_c5_classes_are_compared_in_one_unicode_form(tmp_path: Path):
    root = folder(tmp_path, train=(COMPOSED, NO_UTF8), test=(DECOMPOSED, NO_UTF8))
    classes, parts, _ = scan(str(root))
    assert classes == (r"caf\xe9", COMPOSED)
    assert parts["test"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert Path(parts["test"].paths()[5]).is_file()
    assert canonical(DECOMPOSED) == COMPOSED


def test_folders_of_one_name_in_two_forms_are_one_class(tmp_path: Path):
    root = folder(tmp_path, train=(COMPOSED, DECOMPOSED, "z"), test=(COMPOSED, "z"))
    classes, parts, _ = scan(str(root))
    assert classes == (COMPOSED, "z")
    assert parts["train"].labels.tolist() == [0] * 6 + [1] * 3


def test_weights_of_classes_in_another_form_are_of_the_same_classes():
    about = {"input_shape": [1, 2, 2], "mean": [0.5], "std": [0.5], "resize": "bilinear"}
    found = Preprocessing.of({**about, "classes": [DECOMPOSED, NO_UTF8]})
    assert found.classes == (COMPOSED, r"caf\xe9")


def test_what_is_said_of_such_files_can_be_written(tmp_path: Path):
    root = folder(tmp_path, train=("a", "b"), test=("a", "b"))
    for name in (f"{NO_UTF8}.heic", ".hidden"):
        (root / "train" / "a" / name).write_text("")
    (root / "train" / "a" / f"{NO_UTF8}.png").write_text("no image")
    found = survey(str(root), None, None, None, "abort", 0)
    (reason,) = found.unreadable["train"]
    assert reason == rf"{root}/train/a/caf\xe9.png (not an image)"
    assert found.passed_over.examples["of suffix .heic"] == [r"train/a/caf\xe9.heic"]


def test_c5_a_command_line_that_is_no_text_is_refused():
    with pytest.raises(
        ConfigError, match=r"'data.root=caf\\xe9' is not UTF-8, expected text; rename"
    ):
        check_words(["run.py", f"data.root={NO_UTF8}"])
    check_words(["run.py", f"data.root={DECOMPOSED}"])


def test_c5_a_terminal_of_another_encoding_gets_escapes(tmp_path: Path, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    file = logging.FileHandler(tmp_path / "run.log", encoding="ascii", delay=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [file])
    escape_output()
    print(COMPOSED, flush=True)
    logging.getLogger().warning(COMPOSED)
    file.close()
    assert terminal.buffer.getvalue() == b"gr\\xfcn\n"
    assert (tmp_path / "run.log").read_bytes() == b"gr\\xfcn\n"
