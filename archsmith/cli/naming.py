"""The run's name: equal for equal configurations, so that repeating a command resumes its run."""

import copy
import hashlib
from collections.abc import Container, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from archsmith.cli.command_line import program, setting_of
from archsmith.cli.given_run import GivenRun, given_run
from archsmith.cli.tasks import help_lines
from archsmith.differences import digest
from archsmith.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
NOT_IDENTITY = (
    "hydra",
    "task",
    "resume",
    "device",
    "benchmark",
    "checkpoint",
    "runs",
    "baseline",
    "tasks",
    "images",
    "predict",
    "loggers",
)
DATA = "digits"  # the default in conf/config.yaml
NAME = "{strategy}-{space}-{data}-s{seed}-{digest}"


def register() -> None:
    """Registers the resolvers `${run_name:}`, for the run's folder, and `${program:}` and
    `${tasks:}`, for the help."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("program", program, replace=True)
    OmegaConf.register_new_resolver("tasks", lambda: "\n  ".join(help_lines()), replace=True)


def run_name(*, _root_: DictConfig) -> str:
    """`<strategy>-<space>-<data>-s<seed>-<8 hexadecimal digits of the configuration>`."""
    config = inherited(_root_, _root_.hydra)
    identity = digest(job_settings(config))
    return NAME.format(**chosen_names(_root_, _root_.hydra), seed=config.seed, digest=identity)


def chosen_names(config: DictConfig, hydra: Any) -> dict[str, str]:
    """The names of strategy, space and data: those chosen, or those of a given architecture."""
    chosen = {name: hydra.runtime.choices[name] for name in ("strategy", "space", "data")}
    found = _given(config)
    said = {setting_of(override) for override in hydra.overrides.task}
    return chosen | {
        name: value
        for name, value in (found.names if found else {}).items()
        if name not in said and (name != "data" or chosen["data"] == DATA)
    }


def inherited(config: DictConfig, hydra: Any) -> DictConfig:
    """The configuration with the seed and images of the run named by `architecture`, unless they
    are set.

    Overrides of single data settings (`data.root=...`) apply on top of that run's.
    """
    found = _given(config)
    if found is None:
        return config
    said = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    config = copy.deepcopy(config)
    if found.seed is not None and not any(one.key_or_group == "seed" for one in said):
        config.seed = found.seed
    if found.data is None or not _default_data(hydra):
        return config
    with open_dict(config):
        config.data = dict(found.data)
    if found.names["data"] != DATA and hydra.runtime.choices.baseline == "auto":
        config.baseline = None  # as it would have been with these images
    for one in said:
        if one.key_or_group.startswith("data."):
            OmegaConf.update(config, one.key_or_group, one.value())
    return config


def check_given(config: DictConfig, hydra: Any) -> None:
    """Raises ConfigError if the images of a given run are needed but cannot be loaded again."""
    found = _given(config)
    if found and found.names.get("data") and found.data is None and _default_data(hydra):
        raise ConfigError(
            f"architecture: the images of {config.architecture} ('{found.names['data']}') cannot "
            "be read again by what is in the folder; set data=... and its settings, as in that run"
        )


def given_fingerprint(config: DictConfig) -> str | None:
    """The fingerprint of a given run's images, as recorded; the images are not read."""
    found = _given(config)
    return found.fingerprint if found else None


def _default_data(hydra: Any) -> bool:
    said = (setting_of(override) for override in hydra.overrides.task)
    return hydra.runtime.choices.data == DATA and "data" not in said


def _given(config: DictConfig) -> GivenRun | None:
    if not isinstance(config.architecture, str):
        return None
    return given_run(config.architecture, _known_data())


@lru_cache
def _known_data() -> dict[str, dict[str, Any]]:
    found = {path.stem: OmegaConf.load(path) for path in (CONF / "data").glob("*.yaml")}
    return {name: OmegaConf.to_container(node) for name, node in found.items()}  # type: ignore[misc]


def job_settings(config: DictConfig) -> dict[str, Any]:
    """The resolved settings that can change a result; files are represented by their content."""
    plain = _plain(config, NOT_IDENTITY)
    for key in ("architecture", "weights"):
        path = Path(str(plain.get(key) or ""))
        path = path / "architecture.json" if path.is_dir() and plain.get(key) else path
        if path.is_file():
            plain[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return plain


def _plain(config: DictConfig, without: Container[str] = ()) -> dict[str, Any]:
    """The configuration groups with interpolations resolved, and the other settings."""
    return {
        str(key): OmegaConf.to_container(config[key], resolve=True)
        if OmegaConf.is_config(config[key])
        else config[key]
        for key in config
        if key not in without
    }


def known_settings(conf: Path) -> list[str]:
    """Dotted names of every setting of the default configuration, and every group."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        tree = OmegaConf.to_container(compose("config"), resolve=False)
    return [*_flatten(tree, ""), *config_groups(conf)]


def config_groups(conf: Path) -> list[str]:
    """Names of the configuration groups: `strategy`, `strategy/pruning`, ..., without those that
    follow from other choices."""
    found = {str(path.parent.relative_to(conf)) for path in conf.rglob("*.yaml")}
    return sorted(found - {".", "sizes", "sharing", "final", "beside"})


def _flatten(tree: Any, prefix: str) -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
