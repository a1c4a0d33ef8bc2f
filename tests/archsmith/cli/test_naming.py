"""A run's name: another one for every setting that changes a result, the same for all others."""

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from archsmith.cli import naming

OTHERS = {
    "task", "resume", "device", "benchmark", "checkpoint", "runs", "baseline", "tasks", "images",
    "predict", "loggers",
}  # fmt: skip


@pytest.fixture
def config() -> DictConfig:
    naming.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(naming.CONF)):
        found = compose(
            "config", ["strategy=sddarts", "baseline=resnet18"], return_hydra_config=True
        )
    OmegaConf.set_struct(found, False)
    return found


def leaves(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path


def settings(config: DictConfig) -> list[str]:
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [k for k in config if k != "hydra"])
    )
    return list(leaves(plain))


def test_d1_every_setting_that_changes_a_result_changes_the_name(config: DictConfig):
    paths = settings(config)
    assert len(paths) > 100
    name = naming.run_name(_root_=config)
    kept = set()
    for path in paths:
        before = OmegaConf.select(config, path)
        OmegaConf.update(config, path, "another value", merge=False)
        if naming.run_name(_root_=config) == name:
            kept.add(path.partition(".")[0])
        OmegaConf.update(config, path, before, merge=False)
    assert kept == OTHERS
    assert naming.run_name(_root_=config) == name


def test_nothing_of_a_part_that_changes_no_result_is_in_the_name(config: DictConfig):
    name = naming.run_name(_root_=config)
    for part in OTHERS:
        config[part] = "another value"
    assert naming.run_name(_root_=config) == name


def test_the_name_says_strategy_space_data_and_seed(config: DictConfig):
    config.seed = 7
    assert naming.run_name(_root_=config).startswith("sddarts-darts-digits-s7-")


def test_a_file_counts_by_its_content(config: DictConfig, tmp_path):
    found = []
    for folder, content in (("a", "{}"), ("b", "{}"), ("c", "{ }")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "architecture.json"
        path.write_text(content)
        for given in (path, path.parent):
            config.architecture = str(given)
            found.append(naming.run_name(_root_=config))
    assert found[0] == found[1] == found[2] == found[3] != found[4] == found[5]
