import hashlib
import json
from pathlib import Path

import pytest

from search_spaces.architecture import FIRST, FORMAT, Architecture
from search_spaces.space import Space

CHOICES = {
    "normal": {
        "0-2": ["sep_conv_3x3"],
        "1-2": ["skip_connect"],
        "0-3": ["none"],
        "2-3": ["max_pool_3x3"],
    },
    "reduce": {
        "0-2": ["max_pool_3x3"],
        "1-2": ["dil_conv_5x5", "skip_connect"],
        "1-3": ["skip_connect"],
    },
}


@pytest.fixture
def found(toy_darts: Space) -> Architecture:
    return Architecture.of(toy_darts, CHOICES, strategy="darts", epoch=3)


def test_survives_a_round_trip(found: Architecture, tmp_path: Path):
    found.save(tmp_path / "a.json")
    loaded = Architecture.load(tmp_path / "a.json")
    assert loaded == found
    assert loaded.meta == {"strategy": "darts", "epoch": 3}
    assert loaded.identity == found.identity


def test_order_does_not_matter_and_none_is_a_dropped_edge(toy_darts: Space, found: Architecture):
    turned = {
        group: {edge: names[::-1] for edge, names in reversed(edges.items())}
        for group, edges in CHOICES.items()
    }
    other = Architecture.of(toy_darts, turned, strategy="pcdarts")
    assert other == found
    assert other.to_json(meta=False) == found.to_json(meta=False)
    assert "0-3" not in other.choices["normal"]


def test_another_choice_is_another_identity(toy_darts: Space, found: Architecture):
    changed = {**CHOICES, "normal": {**CHOICES["normal"], "0-2": ["sep_conv_5x5"]}}
    assert Architecture.of(toy_darts, changed).identity != found.identity


def test_a_file_of_the_first_format_is_read_and_keeps_its_identity(tmp_path: Path, found):
    """Written by hand in the form of 0.1.0, where the settings stood beside the name."""
    first = {"format": FIRST, "space": found.space, "choices": CHOICES, "meta": {"seed": 7}}
    path = tmp_path / "first.json"
    path.write_text(json.dumps(first))
    loaded = Architecture.load(path)
    assert loaded == found
    assert loaded.meta == {"seed": 7}
    canonical = {"format": FIRST, "space": found.space, "choices": loaded.choices}
    text = json.dumps(canonical, sort_keys=True, indent=2) + "\n"
    assert loaded.identity == hashlib.sha256(text.encode()).hexdigest()[:8]


def test_a_setting_called_name_does_not_shadow_the_space(toy_darts: Space, found: Architecture):
    content = json.loads(found.to_json())
    assert content["format"] == FORMAT
    assert content["space"] == {
        "name": "darts", "settings": json.loads(json.dumps(dict(toy_darts.settings)))
    }  # fmt: skip


def written(tmp_path: Path, found: Architecture, **changes) -> Path:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(json.loads(found.to_json()) | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format": "archsmith.architecture/3"},
            f"expected format '{FORMAT}' or '{FIRST}', found 'archsmith.architecture/3'",
        ),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"space": {"nodes": 4}}, 'must be an object with a "name"'),
        ({"space": {"name": "darts", "nodes": 4}}, 'must hold "name" and "settings"'),
        ({"choices": {"normal": {"0-2": "sep_conv_3x3"}}}, "must map a row to a list"),
        ({"choices": {"normal": {"0-2": [{"a": 1}]}}}, "must map a row to a list"),
        ({"space": {"name": "x", "_target_": "os.system"}}, "'_target_' may not stand"),
        ({"choices": []}, '"choices" and "meta" must be objects'),
    ],
)
def test_a_wrong_file_is_one_clear_line(
    tmp_path: Path, found: Architecture, changes: dict, message: str
):
    path = written(tmp_path, found, **changes)
    with pytest.raises(ValueError, match=message) as error:
        Architecture.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_code_in_a_file_is_never_run(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(f"__import__('pathlib').Path({str(tmp_path / 'pwned')!r}).touch()")
    with pytest.raises(ValueError, match="not a readable JSON file"):
        Architecture.load(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {**CHOICES, "normal": {"0-2": ["conv_9x9"]}},
            "unknown option 'conv_9x9' in row 0-2 of 'normal'",
        ),
        ({**CHOICES, "normal": {"0-9": ["skip_connect"]}}, "'normal' has no row '0-9'"),
        ({"normal": {}}, "choices .* do not fit"),
    ],
)
def test_what_the_space_has_not_is_refused(toy_darts: Space, choices: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Architecture.of(toy_darts, choices)


def test_another_space_is_refused(toy_nasbench201: Space, found: Architecture):
    with pytest.raises(ValueError, match="found in space 'darts', but space=nasbench201"):
        found.check(toy_nasbench201)
