"""Text: its vocabulary, its windows, its parts."""

from pathlib import Path
from typing import Any

import pytest
import torch

from archsmith.data.preprocessing import Preprocessing
from archsmith.data.roles import Data
from archsmith.data.text import UNKNOWN, encoded, text, vocabulary, windows
from archsmith.errors import DataError

NONE = {"crop": 0, "flip": False, "cutout": 0}
SETTINGS: dict[str, Any] = dict(
    context=4, test_share=0.2, limit=None, split=0.5, select=0.25, augment=NONE, seed=0
)


def made(tmp_path: Path, content: str | None, **changes: Any) -> Data:
    root = None
    if content is not None:
        root = tmp_path / "some.txt"
        root.write_text(content, encoding="utf-8")
    return text(None if root is None else str(root), **SETTINGS | changes)


def numbered(n: int) -> str:
    """Text of which every window is told by its characters."""
    return "".join(chr(0x4E00 + i % 200) for i in range(n))


def test_a_window_is_labelled_with_what_follows_each_character():
    images = windows(torch.arange(11, dtype=torch.uint8), 4)
    (batch,) = images.batches([images.all])
    assert batch[0].tolist() == [[[[0, 1, 2, 3]]], [[[5, 6, 7, 8]]]]
    assert batch[1].tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]


def test_the_vocabulary_is_that_of_the_training_part(tmp_path: Path):
    data = made(tmp_path, 20 * "ab\n b" + 25 * "a" + "z" * 5)
    assert data.classes == (UNKNOWN, r"\n", " ", "a", "b")
    assert data.preprocessing.characters == ["\n", " ", "a", "b"]
    test = data.test(8)
    ids = torch.cat([y for _, y in test])
    assert (ids[-1] == 0).all()


def test_at_most_255_characters_are_known():
    known = vocabulary("a" + 2 * "".join(chr(0x4E00 + i) for i in range(300)))
    assert len(known) == 255
    assert "a" not in known
    assert encoded("a" + known[0] + known[-1], known).tolist() == [0, 1, 255]


@pytest.mark.parametrize("one_level", [True, False])
def test_roles_are_blocks_of_the_text_that_share_no_character(tmp_path: Path, one_level: bool):
    content = numbered(200)
    data = made(tmp_path, content)
    parts = data.split(one_level=one_level)
    places: dict[str, set[int]] = {}
    for role, index in [*parts.items(), ("test", None)]:
        loader = data.test(4) if index is None else data.plain(role, index, 4)
        found: set[int] = set()
        for x, y in loader:
            both = torch.cat([x.flatten(1).round().long(), y[:, -1:]], 1)
            for window in both.tolist():
                names = [data.preprocessing.characters[i - 1] if i else "?" for i in window]
                found |= {ord(name) - 0x4E00 for name in names if name != "?"}
        places[role] = found
    roles = ["train", "select"] if one_level else ["train", "val", "select"]
    assert {*parts} == {*roles}
    ends = -1
    for role in roles:
        assert min(places[role]) > ends, role
        ends = max(places[role])
    assert not places["test"]  # characters after those: unknown
    sizes = {role: len(index) for role, index in parts.items()}
    expected = {"train": 24, "select": 8} if one_level else {"train": 12, "val": 12, "select": 8}
    assert sizes == expected


def test_inputs_are_ids_and_a_pass_of_a_role_is_repeated_exactly(tmp_path: Path):
    data = made(tmp_path, numbered(400))
    roles = data.loaders(4, one_level=False, seed=1)
    x, y = next(iter(roles.train))
    assert x.shape == (4, 1, 1, 4)
    assert y.shape == (4, 4)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, x.round(), rtol=0, atol=1e-4)
    assert torch.equal(x.flatten(1)[:, 1:].round().long(), y[:, :-1])
    again = data.loaders(4, one_level=False, seed=1)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(again.val, roles.val, strict=True))
    assert len(roles.sample.index) == 4


def test_the_limit_keeps_the_first_windows_and_the_whole_vocabulary(tmp_path: Path):
    data = made(tmp_path, numbered(400), limit=9)
    assert len(data.images) == 9
    assert len(data.classes) == 201
    assert data.fingerprint() != made(tmp_path, numbered(400)).fingerprint()


def test_the_help_topics_of_python_are_there(tmp_path: Path):
    data = made(tmp_path, None, context=64)
    assert len(data.images) > 3000
    assert "e" in data.classes


def test_the_preprocessing_comes_back_from_its_file(tmp_path: Path):
    given = made(tmp_path, 30 * "a\tb\n\\ \u2028é").preprocessing
    assert Preprocessing.of(given.about()) == given
    assert given.reads_text
    assert given.characters == sorted(set("a\tb\n\\ \u2028é"))
    assert given.values == len(given.classes)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("abcdefgh", {}, "1 windows of 4 characters in the training part, expected 2 or more"),
        (25 * "ab", dict(select=0.1), "windows for role 'select', expected 2 or more"),
        (100 * "a", {}, "text: 1 different characters, expected at least 2"),
    ],
)
def test_texts_that_do_not_do_are_refused(tmp_path: Path, content: str, changes: Any, message: str):
    with pytest.raises(DataError, match=message):
        made(tmp_path, content, **changes).loaders(2, one_level=False, seed=0)


def test_files_that_are_no_text_are_refused(tmp_path: Path):
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"\xff\xfe\x00" * 100)
    for root in (broken, tmp_path / "none.txt"):
        with pytest.raises(DataError, match=r"cannot be read .* UTF-8 text; set data.root to one"):
            text(str(root), **SETTINGS)


def test_text_is_not_augmented(tmp_path: Path):
    with pytest.raises(ValueError, match=r"data.augment.flip: .* found True; set it to false"):
        made(tmp_path, 50 * "ab\n b", augment=NONE | {"flip": True})
    with pytest.raises(ValueError, match=r"data.augment.crop: .* set it to 0"):
        made(tmp_path, 50 * "ab\n b").training(4, 0, {"crop": 2})
