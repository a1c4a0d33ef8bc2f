"""F13 and what else a received file could try: nothing in it is called, and nothing hangs."""

import copy
import io
import json
import math
import os
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.toys import ToySearch, at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from archsmith.cli.preflight import some_architecture
from archsmith.errors import CheckpointError, ConfigError, Failure, Interrupted
from archsmith.result.network import load_final
from archsmith.train.checkpoint import FORMAT, Checkpoints
from search_spaces.architecture import Architecture
from search_spaces.space import Space

ARCHITECTURE = {
    "format": "archsmith.architecture/1",
    "space": {
        "name": "darts", "layers": 3, "nodes": 1, "channels": 4, "candidates": ["skip_connect"],
        "input_shape": [3, 8, 8], "classes": 3, "stem": "small", "stem_multiplier": None,
        "share_alphas": True,
    },
    "choices": {"normal": {"0-2": ["skip_connect"]}, "reduce": {"0-2": ["skip_connect"]}},
    "meta": {},
}  # fmt: skip
SMALL = [
    "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3", "task=retrain",
    "retrain.layers=3", "retrain.channels=4", "runtime.threads=1", "hydra.run.dir=d",
]  # fmt: skip


@pytest.fixture
def given_file(archsmith, monkeypatch, tmp_path: Path):
    """Runs the command line with an architecture, up to the first phase (exit code 75)."""

    def stop(job: object) -> None:
        raise Interrupted("prepared")

    monkeypatch.setattr("archsmith.phases.run.Run", stop)

    def call(content: object):
        path = tmp_path / "received.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return archsmith(*SMALL, f"architecture={path}")

    return call


def changed(*path: str | int, to: object) -> dict:
    content = copy.deepcopy(ARCHITECTURE)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return content


CODE = "__import__('os').system('touch executed')"
ATTACKS = [
    CODE,
    f'{{"format": {CODE}}}',
    changed("choices", "normal", to={"0-2": [CODE]}),
    changed("choices", "normal", to={CODE: ["skip_connect"]}),
    changed("space", "candidates", to=[CODE]),
    changed("space", "name", to="../../../etc/passwd"),
    changed("space", "name", to="os.system"),
    changed(
        "space", "operations", to={"x": {"_target_": "os.system", "command": "touch executed"}}
    ),
    changed("space", "_target_", to="os.system"),
    changed("meta", "_target_", to="os.system"),
    changed("space", "stem", to={"_target_": "os.system"}),
    changed("space", "candidates", to={}),
    changed("space", "candidates", to={"normal": []}),
    changed("space", "layers", to=10**12),
    changed("space", "nodes", to=10**6),
    changed("space", "channels", to=10**9),
    changed("space", "stem_multiplier", to=10**9),
    "[" * 200_000,
    '{"format": ' + "9" * 10_000 + "}",
]


@pytest.mark.slow
@pytest.mark.parametrize("attack", range(len(ATTACKS)))
def test_f13_a_hostile_architecture_is_refused_and_not_run(given_file, attack: int):
    said = given_file(ATTACKS[attack])
    assert said.code == 2
    assert said.err.count("archsmith: ") == 1
    assert "Traceback" not in said.err
    assert not Path("executed").exists()


def test_f13_nothing_but_two_files_of_a_received_run_directory_is_read(
    archsmith, monkeypatch, tmp_path: Path
):
    def stop(job: object) -> None:
        raise Interrupted("prepared")

    monkeypatch.setattr("archsmith.phases.run.Run", stop)
    received = tmp_path / "received"
    (received / ".hydra").mkdir(parents=True)
    (received / "checkpoints").mkdir()
    (received / "architecture.json").write_text(json.dumps(ARCHITECTURE))
    evil = "_target_: os.system\ncommand: touch executed\n"
    for name in ("config.yaml", "overrides.yaml", "hydra.yaml"):
        (received / ".hydra" / name).write_text(evil)
    (received / "checkpoints" / "search_000001.pt").write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
    assert archsmith(*SMALL, f"architecture={received}").code == 75
    assert not Path("executed").exists()


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [path, *(p for k, v in value.items() for p in leaves(v, (*path, k)))]
    if isinstance(value, list):
        return [path, *(p for i, v in enumerate(value) for p in leaves(v, (*path, i)))]
    return [path]


NUMBERS = st.integers(-(10**20), 10**20) | st.floats()
PLAIN = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
JSON = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
MUTATIONS = st.tuples(st.sampled_from([p for p in leaves(ARCHITECTURE) if p]), JSON)
LENIENT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.slow
@settings(max_examples=3, deadline=None, suppress_health_check=LENIENT)
@given(mutation=MUTATIONS)
def test_f13_any_change_is_refused_in_one_line_or_harmless(given_file, mutation: tuple):
    said = given_file(changed(*mutation[0], to=mutation[1]))
    assert said.code in (2, 75), (mutation, said.err)
    assert "Traceback" not in said.err


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=LENIENT)
@given(mutation=MUTATIONS)
def test_f13_many_changes(given_file, mutation: tuple):
    said = given_file(changed(*mutation[0], to=mutation[1]))
    assert said.code in (2, 75), (mutation, said.err)
    assert "Traceback" not in said.err


def mutated(content: bytes, source: random.Random) -> bytes:
    """A few bytes changed, cut, doubled or put in."""
    found = bytearray(content)
    for _ in range(source.randint(1, 8)):
        i = source.randrange(len(found))
        match source.randrange(4):
            case 0:
                found[i] = source.randrange(256)
            case 1:
                del found[i : i + source.randint(1, 40)]
            case 2:
                found[i:i] = found[i : i + source.randint(1, 40)]
            case _:
                found[i:i] = source.randbytes(source.randint(1, 9))
        if not found:
            break
    return bytes(found)


def test_f13_random_bytes_in_architecture_files_are_errors_of_one_kind(tmp_path: Path):
    content, source = json.dumps(ARCHITECTURE).encode(), random.Random(0)
    path, said = tmp_path / "a.json", []
    for _ in range(300):
        path.write_bytes(mutated(content, source))
        try:
            found = Architecture.load(path)
        except ValueError as error:
            said.append(str(error))
        else:  # a number or a name was changed: it is a file like any other
            found.save(path)
            assert Architecture.load(path) == found
    assert 200 < len(said) < 300
    assert all("a.json" in line and "\n" not in line for line in said)


@pytest.mark.parametrize(
    "count", [60, pytest.param(2000, marks=pytest.mark.exhaustive)], ids=["some", "many"]
)
def test_f12_random_bytes_in_checkpoints_are_errors_of_one_kind(count: int, tmp_path: Path):
    """With a manifest that vouches for them, as only a hostile one would."""
    buffer, source = io.BytesIO(), random.Random(0)
    state = {"tensor": torch.randn(20), "names": ["a", "b"], "step": 3}
    torch.save({"format": FORMAT, "identity": {"x": 1}, "state": state}, buffer)
    said = []
    for _ in range(count):
        content = mutated(buffer.getvalue(), source)
        (tmp_path / "search_000001.pt").write_bytes(content)
        entry = {"file": "search_000001.pt", "sha256": sha256(content).hexdigest()}
        (tmp_path / "search_manifest.json").write_text(json.dumps([entry]))
        try:
            found = Checkpoints(tmp_path, "search", {"x": 1}).load()
        except CheckpointError as error:
            said.append(str(error))
        else:  # a change in padding, or within the numbers of the tensor
            assert isinstance(found, dict)
    assert len(said) > count / 2
    assert not any("\n" in line for line in said)


OTHERS = (
    None, True, -1, 3, 10**20, 0.5, math.nan, "x", [], [1], {}, {"a": 1}, torch.zeros(()),
    torch.zeros(2, 3), torch.full((4,), math.nan), torch.zeros(3, dtype=torch.uint8),
)  # fmt: skip


def with_another_value(state: dict, source: random.Random) -> tuple:
    """Replaces or removes something on a random way into a state; returns where, and by what."""
    place: Any = state
    path = []
    while True:
        path.append(source.choice(list(place) if isinstance(place, dict) else range(len(place))))
        inner = place[path[-1]]
        if not (isinstance(inner, dict | list) and inner) or source.random() < 0.1:
            break
        place = inner
    if isinstance(place, dict) and source.random() < 0.2:
        del place[path[-1]]
        return path, "removed"
    place[path[-1]] = other = copy.deepcopy(source.choice(OTHERS))
    return path, other


@pytest.mark.parametrize(
    "count", [4, pytest.param(100, marks=pytest.mark.exhaustive)], ids=["some", "many"]
)
def test_f12_any_change_in_a_state_is_refused_in_one_line_or_harmless(
    count: int, toy_darts: Space, tmp_path: Path
):
    """What loads and is data all the same: other types, shapes and numbers, and things missing."""
    with pytest.raises(Interrupted):
        ToySearch(toy_darts, "pcdarts").run(tmp_path, stop=at(1))
    good = Checkpoints(tmp_path / "checkpoints", "search", {}).load()
    assert good is not None
    source, refused, said = random.Random(count), 0, []
    for _ in range(count):
        state = copy.deepcopy(good)
        change = with_another_value(state, source)
        Checkpoints(tmp_path / "checkpoints", "search", {}).save(state)
        try:
            ToySearch(toy_darts, "pcdarts").run(tmp_path, stop=at(1))
        except Failure as failure:
            refused += failure.exit_code == CheckpointError.exit_code
            said.append(str(failure))
        except Exception as error:
            pytest.fail(f"{change}: {type(error).__name__}: {error}")
    print(f"{count} states changed, {refused} refused, the others harmless")
    assert refused
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize(
    "said",
    ["", "{}", "[]", "5", '{"network": {}}', '{"network": 5, "architecture": {}}',
     '{"network": {"operations": {"x": {"_target_": "os.system"}}}, "architecture": {}, "data": '
     '{"name": "x", "classes": [], "mean": [], "std": []}}', "[" * 5000],
)  # fmt: skip
def test_f13_what_weights_say_of_themselves_is_checked(said: str, toy_darts: Space, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"archsmith": said})
    with pytest.raises(ConfigError):
        load_final(path, toy_darts, some_architecture(toy_darts))


def test_f13_weights_that_are_no_weights_are_refused(toy_darts: Space, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    for content in (b"", os.urandom(200), (2**62).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="not a readable safetensors file"):
            load_final(path, toy_darts, some_architecture(toy_darts))
