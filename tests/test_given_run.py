"""`architecture=<run directory>`: its images, seed and names are those of that run."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from test_command_line import TINY

from archsmith.cli import naming

IMAGES = {
    "_target_": "archsmith.data.sets.synthetic", "root": None, "size": 48, "classes": 3,
    "channels": 3, "image_size": 8, "noise": 1.0, "limit": None, "split": 0.5, "select": 0.1,
    "augment": {"crop": 0, "flip": False, "cutout": 0}, "seed": 0,
}  # fmt: skip


def a_run(folder: Path, data: str = "synthetic", **changes: object) -> Path:
    """What a run of seed 3 leaves, of its settings only those of the images."""
    folder.mkdir()
    architecture = {"space": {"name": "nasbench201"}, "meta": {"strategy": "gdas"}}
    results = {"strategy": "gdas", "data": data, "data_fingerprint": "ab" * 32}
    for name, content in (
        ("architecture", architecture),
        ("results", results),
        ("config", {"seed": 3, "data": IMAGES | changes}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def composed(*overrides: str) -> DictConfig:
    naming.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(naming.CONF)):
        return compose("config", list(overrides), return_hydra_config=True)


def test_c2_a_given_run_brings_its_images_seed_and_names(tmp_path: Path):
    config = composed("task=retrain", f"architecture={a_run(tmp_path / 'r')}", "data.split=0.7")
    found = naming.inherited(config, config.hydra)
    assert (found.seed, found.data.size, found.data.split) == (3, 48, 0.7)
    assert naming.run_name(_root_=config).startswith("gdas-nasbench201-synthetic-s3-")
    assert naming.given_fingerprint(config) == "ab" * 32


def test_c2_what_is_said_on_the_command_line_counts_before_it(tmp_path: Path):
    given = f"architecture={a_run(tmp_path / 'r')}"
    config = composed(given, "data=cifar10", "seed=5", "strategy=pcdarts", "space=darts")
    found = naming.inherited(config, config.hydra)
    assert (found.seed, found.data.dataset) == (5, "CIFAR10")
    assert naming.run_name(_root_=config).startswith("pcdarts-darts-cifar10-s5-")


def test_c2_a_published_cell_is_called_by_its_name():
    assert naming.run_name(_root_=composed("architecture=DARTS_V2")).startswith("DARTS_V2-darts-")


@pytest.mark.parametrize(
    "changes",
    [
        {"_target_": "os.system"},
        {"root": "${oc.env:HOME}"},
        {"root": {"_target_": "os.system"}},
        {"command": "x"},
    ],
)
def test_c2_code_in_a_given_run_is_not_taken(tmp_path: Path, changes: dict):
    config = composed(f"architecture={a_run(tmp_path / 'r', **changes)}")
    assert naming.inherited(config, config.hydra).data._target_ == "archsmith.data.sets.digits"
    with pytest.raises(naming.ConfigError, match=r"cannot be read again .* set data="):
        naming.check_given(config, config.hydra)


def test_c2_images_of_a_notebook_are_asked_for(archsmith, tmp_path: Path):
    said = archsmith("task=retrain", f"architecture={a_run(tmp_path / 'r', data='own')}")
    assert (said.code, "('own')" in said.err) == (2, True)


@pytest.mark.slow
def test_c2_export_and_retraining_of_a_run_are_titled_after_it(archsmith, tmp_path: Path):
    assert archsmith(*TINY, "strategy=random", "seed=3", "hydra.run.dir=r").code == 0
    kept = json.loads(Path("r/results.json").read_text())
    for task in ("export", "retrain"):
        said = archsmith(
            f"task={task}", "architecture=r", f"hydra.run.dir={task}", "export.formats=[genotype]",
            "retrain.epochs=1", "retrain.layers=3", "retrain.channels=4",
        )  # fmt: skip
        assert said.code == 0, said.err
        assert "random on darts, synthetic, seed 3" in said.out
        results = json.loads(Path(task, "results.json").read_text())
        assert results["data_fingerprint"] == kept["data_fingerprint"]
        assert results["architecture"] == kept["architecture"]
