"""The command line in one process: what a user types, what they read, and the exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Said
from helpers import RUN
from PIL import Image

from archsmith.cli import main as run
from archsmith.cli import naming
from archsmith.cli.messages import LISTED
from archsmith.errors import Interrupted
from search_spaces.architecture import Architecture
from supernets.forms import use_form

TINY = [
    "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3",
    "space.layers=3", "space.nodes=1", "space.channels=4",
    "search.epochs=1", "search.batch_size=16", "runtime.threads=1",
    "retrain.layers=3", "retrain.channels=4", "retrain.epochs=1", "retrain.batch_size=16",
]  # fmt: skip


def line_of(said: Said) -> str:
    """The one line a failure prints, without a traceback."""
    lines = [line for line in said.err.splitlines() if line.startswith("archsmith: ")]
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err
    return lines[0]


WRONG = [
    (["strategy=pcdart"], "unknown 'pcdart', did you mean 'pcdarts'?"),
    (["strategyy=darts"], "unknown setting 'strategyy', did you mean 'strategy'?"),
    (["serch.epochs=3"], "unknown setting 'serch.epochs', did you mean 'search.epochs'?"),
    (["strategy.warmupp=0.1"], "did you mean 'strategy.warmup'?"),
    (["strategy=random", "strategy.clip=1"], "strategy.clip: not a setting of what is chosen here"),
    (["search.epochs=-1"], "search.epochs: expected a whole number of at least 1, found -1"),
    (["search.epochs=many"], "search.epochs: expected a whole number of at least 1, found 'many'"),
    (["search.batch_size=0"], "search.batch_size"),
    (["strategy=pcdarts", "space.channels=6"], "6 channels cannot be split into k=4 equal parts"),
    (["strategy.warmup=1.0"], "strategy.warmup"),
    (["strategy/update=second_order", "strategy.update.hessian=x"], "strategy.update.hessian"),
    (["space.candidates=[sep_conv3x3]"], "space.candidates: unknown 'sep_conv3x3'; known: none"),
    (["task=serch"], "task: unknown 'serch'; known: all, search"),
    (["device=cuda:99"], "device: 'cuda:99' is not on this machine"),
    (["resume=maybe"], "resume: expected one of auto, never, force, found 'maybe'"),
    (["seed=-1"], "seed: expected a whole number of at least 0"),
    (["task=export", "architecture=DARTS_V2"], "weights: this task needs a trained network"),
    (["task=retrain"], "architecture: this task needs one"),
    (["task=retrain", "architecture=DARTS_V3"], "DARTS_V2"),
    (["retrain.epochs=0"], "retrain.epochs: expected a whole number of at least 1, found 0"),
    (["retrain.cutout=16"], "retrain.cutout: 16 could blank a whole 8x8 image; set it below 8"),
    (["experiment=null"], "experiment=null: expected names of choices"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"), WRONG, ids=lambda v: v[-1] if isinstance(v, list) else ""
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(archsmith, overrides: list[str], message: str):
    said = archsmith(*TINY, *overrides)
    assert said.code == 2
    assert message in line_of(said)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"format": "archsmith.architecture/9"}, [], "found 'archsmith.architecture/9'"),
        (
            {"space": {"name": "unheard_of"}},
            [],
            "found in space 'unheard_of', which is not one of ours",
        ),
        (
            {},
            ["space=nasbench201", "space.layers=5"],
            "found in space 'darts', but space=nasbench201",
        ),
        ({"space": ARCHITECTURE["space"] | {"x": 1}}, [], "space 'darts' has no setting 'x'"),
        (
            {"choices": {"normal": {"0-2": ["os.system('x')"]}, "reduce": {}}},
            [],
            "unknown option",
        ),
        (
            {"space": ARCHITECTURE["space"] | {"_target_": "os.system"}},
            [],
            "'_target_' may not stand",
        ),
        ({"space": ARCHITECTURE["space"] | {"nodes": "many"}}, [], "space.nodes"),
        ({"space": ARCHITECTURE["space"] | {"candidates": 5}}, [], "space.candidates"),
    ],
)
def test_a_bad_architecture_file_is_one_line_and_exit_code_2(
    archsmith, tmp_path: Path, changes: dict, overrides: list[str], message: str
):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ARCHITECTURE | changes))
    said = archsmith(*TINY, "task=retrain", f"architecture={path}", *overrides)
    assert said.code == 2
    assert message in line_of(said)


def image_tree(root: Path, classes: int, images: int = 6) -> None:
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for c in range(classes):
            folder = root / part / f"class_{c}"
            folder.mkdir(parents=True)
            for i in range(images):
                Image.fromarray(generator.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(
                    folder / f"{i}.png"
                )


def test_an_empty_class_folder_is_named(archsmith, tmp_path: Path):
    image_tree(tmp_path / "images", 2)
    (tmp_path / "images" / "train" / "nobody").mkdir()
    said = archsmith("data=folder", f"data.root={tmp_path / 'images'}")
    assert said.code == 3
    assert "nobody" in line_of(said)


def test_one_class_is_refused(archsmith, tmp_path: Path):
    image_tree(tmp_path / "images", 1)
    said = archsmith("data=folder", f"data.root={tmp_path / 'images'}")
    assert said.code == 3
    assert "expected at least 2" in line_of(said)


def test_a_corrupt_image_is_named_by_its_path(archsmith, tmp_path: Path):
    image_tree(tmp_path / "images", 2)
    bad = tmp_path / "images" / "train" / "class_1" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    said = archsmith("data=folder", f"data.root={tmp_path / 'images'}")
    assert said.code == 3
    assert str(Path("class_1") / "3.png") in line_of(said)


def test_missing_images_are_exit_code_3(archsmith):
    said = archsmith("data=folder", "data.root=nowhere")
    assert said.code == 3
    assert "nowhere" in line_of(said)


@pytest.mark.slow
def test_all_phases_then_again_then_one_alone(archsmith, tmp_path: Path, monkeypatch):
    forms: list[str] = []

    def noted(net, form, device, **layout):
        forms.append(form)
        use_form(net, form, device, **layout)

    for module in ("archsmith.result.retrain", "archsmith.phases.final"):
        monkeypatch.setattr(f"{module}.use_form", noted)
    first = archsmith(*TINY, "export.formats=[standalone,genotype]")
    assert first.code == 0, first.err
    assert forms == ["auto", "auto"]  # of retraining and evaluation
    (folder,) = (tmp_path / "outputs").iterdir()
    assert folder.name.startswith("darts-darts-synthetic-s0-")
    results = json.loads((folder / "results.json").read_text())
    assert results["test_reads"] == 1
    assert 0 <= results["test_accuracy"] <= 1
    assert results["parameters"] > 0
    assert results["macs"] > 0
    assert set(results["seconds"]) == {"search", "retrain", "evaluate", "export"}
    assert set(results["peak_memory_bytes"]) == {"search", "retrain", "evaluate", "export"}
    for name in (
        "architecture.json",
        "cell_normal.svg",
        "cell_reduce.svg",
        "metrics.jsonl",
        "weights.safetensors",
        "layers.json",
    ):
        assert (folder / name).is_file(), name
    assert "% of the gates" in (folder / "cell_normal.svg").read_text()
    layers = json.loads((folder / "layers.json").read_text())["layers"]
    assert sum(layer["macs"] for layer in layers) == results["macs"]
    assert (folder / "export" / "model.py").is_file()

    again = archsmith(*TINY, "export.formats=[standalone,genotype]")
    assert again.code == 0
    assert json.loads((folder / "results.json").read_text()) == results

    said = archsmith(*TINY, "task=evaluate", f"architecture={folder}", "hydra.run.dir=evaluated")
    assert said.code == 0, said.err
    evaluated = json.loads(Path("evaluated/results.json").read_text())
    assert evaluated["test_accuracy"] == results["test_accuracy"]
    assert evaluated["seconds"].keys() == {"evaluate"}


@pytest.mark.slow
def test_what_follows_a_search_takes_an_architecture_file_or_a_run(archsmith, tmp_path: Path):
    assert archsmith(*TINY, "export.formats=[]").code == 0
    (folder,) = (tmp_path / "outputs").iterdir()
    said = archsmith(
        *TINY, "task=export", "hydra.run.dir=exported", "export.formats=[genotype]",
        f"architecture={folder / 'architecture.json'}", f"weights={folder / 'weights.safetensors'}",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert (tmp_path / "exported" / "export" / "genotype.txt").is_file()

    for given in (folder / "architecture.json", folder):  # all phases but the search
        place = f"given_{given.stem}"
        said = archsmith(
            *TINY, f"architecture={given}", "seed=5", f"hydra.run.dir={place}", "export.formats=[]"
        )
        assert said.code == 0, said.err
        assert json.loads((tmp_path / place / "results.json").read_text())["test_reads"] == 1
        assert (tmp_path / place / "weights.safetensors").is_file()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_architecture_byte_for_byte(archsmith):
    for name in ("one", "two", "other"):
        seed = "seed=1" if name == "other" else "seed=0"
        assert archsmith(*TINY, "task=search", seed, f"hydra.run.dir={name}").code == 0
    files = [Path(name, "architecture.json") for name in ("one", "two", "other")]
    assert files[0].read_bytes() == files[1].read_bytes()
    one, _, other = map(Architecture.load, files)
    assert one.choices != other.choices  # the files differ anyway: they hold the seed


def test_d1_the_seed_starts_alphas_weights_and_batches(archsmith, monkeypatch):
    started = {}

    def stop(net, strategy, roles, *_, **__) -> None:
        tensors = [*strategy.arch_parameters(), next(net.parameters())]
        started[roles.train.seed] = [t.detach().clone() for t in tensors]
        raise Interrupted("started")

    monkeypatch.setattr("archsmith.phases.methods.Search", stop)
    for seed in (3, 4):
        archsmith(*TINY, "task=search", f"seed={seed}", f"hydra.run.dir={seed}")
    assert set(started) == {3, 4}
    assert not any(torch.equal(a, b) for a, b in zip(*started.values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    ["darts", pytest.param("darts_second_order", marks=pytest.mark.slow), "pcdarts", "random"],
)
def test_strategies_leave_the_documented_fields(archsmith, strategy: str):
    said = archsmith(*TINY, f"strategy={strategy}", "task=search", "hydra.run.dir=d")
    assert said.code == 0, said.err
    results = json.loads(Path("d/results.json").read_text())
    expected = {
        "strategy", "space", "data", "seed", "supernet_accuracy", "discretised_accuracy",
        "test_accuracy", "parameters", "macs", "seconds", "peak_memory_bytes", "test_reads",
        "device", "versions",
    }  # fmt: skip
    assert expected <= set(results)
    assert results["test_reads"] == 0
    assert results["test_accuracy"] is None
    assert (results["supernet_accuracy"] is None) == (strategy == "random")


@pytest.mark.slow
def test_changed_settings_in_one_folder_are_refused(archsmith):
    assert archsmith(*TINY, "task=search", "hydra.run.dir=d").code == 0
    said = archsmith(*TINY, "task=search", "hydra.run.dir=d", "strategy.clip=1.0")
    assert said.code == 6
    assert "strategy.clip" in line_of(said)
    assert (
        archsmith(*TINY, "task=search", "hydra.run.dir=d", "strategy.clip=1.0", "resume=never").code
        == 0
    )


def test_list_names_every_choice_with_a_line(archsmith):
    said = archsmith("task=list")
    assert said.code == 0
    lines = [line.split() for line in said.out.splitlines()]
    for group in LISTED:
        for path in (run.CONF / group).glob("*.yaml"):
            assert any(line[:1] == [path.stem] and len(line) > 3 for line in lines), path


@pytest.mark.slow
def test_help_has_examples_groups_and_settings_that_exist(archsmith):
    said = archsmith("--help")
    assert said.code == 0
    for part in (
        "run.py strategy=pcdarts",
        "-m strategy=",
        "strategy: annealed, beta_darts, dartopti, darts, ",
    ):
        assert part in said.out
    known = set(naming.known_settings(run.CONF))
    settings = re.findall(r"^  ([a-z_.]+)=", said.out, re.M)
    assert len(settings) >= 8
    assert set(settings) <= known


def test_run_py_from_another_folder_in_a_fresh_process(tmp_path: Path):
    found = subprocess.run(
        [sys.executable, RUN, "strategy=pcdart"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr.strip() == line_of(Said(2, "", found.stderr))


def test_a_refused_setting_is_told_in_one_line_and_leaves_no_folder(archsmith):
    said = archsmith(*TINY, "search.epochs=many", "hydra.run.dir=d")
    assert said.err.splitlines() == [
        "archsmith: search.epochs: expected a whole number of at least 1, found 'many'"
    ]
    assert not Path("d").exists()


def test_a_list_leaves_no_folder(archsmith, tmp_path: Path):
    assert archsmith("task=list").code == 0
    assert not list(tmp_path.glob("outputs/*"))
