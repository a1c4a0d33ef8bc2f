"""The run's name: the same for the same configuration, so that a command finds its run again."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from engine.command.command_line import program

CONF = Path(__file__).resolve().parents[2] / "conf"
NOT_IDENTITY = ("hydra", "task", "resume", "device", "benchmark", "checkpoint", "runs", "baseline")
NAME = "{strategy}-{space}-{data}-s{seed}-{digest}"


def register() -> None:
    """Makes `${run_name:}`, for the run's folder, and `${program:}`, for the help, known."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("program", program, replace=True)


def run_name(*, _root_: DictConfig) -> str:
    """`<strategy>-<space>-<data>-s<seed>-<8 hexadecimal digits of the configuration>`."""
    choices = _root_.hydra.runtime.choices
    return NAME.format(
        strategy=choices.strategy,
        space=choices.space,
        data=choices.data,
        seed=_root_.seed,
        digest=digest(identity(_root_)),
    )


def identity(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration, only what changes a result; files enter by their content."""
    plain: dict[str, Any] = {
        str(key): OmegaConf.to_container(config[key], resolve=True)
        if OmegaConf.is_config(config[key])
        else config[key]
        for key in config
        if key not in NOT_IDENTITY
    }
    for key in ("architecture", "weights"):
        path = Path(str(plain.get(key) or ""))
        path = path / "architecture.json" if path.is_dir() and plain.get(key) else path
        if path.is_file():
            plain[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return plain


def digest(plain: Any) -> str:
    """Eight hexadecimal digits of a nested value."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:8]


def defaults_of(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration that a run's choices of groups alone make, before any setting is changed.

    Called within Hydra's main; overrides are those of its command line.
    """
    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = [
        one.input_line
        for one in parsed
        if one.input_line is not None
        and loader.get_group_options(one.key_or_group.partition("@")[0])
    ]
    return _composed(tuple(chosen), str(loader.get_search_path()))


@lru_cache
def _composed(chosen: tuple[str, ...], search_path: str) -> dict[str, Any]:
    """Jobs of a sweep in one process often have the same choices; to compose takes 0.2 s."""
    plain = OmegaConf.to_container(compose("config", overrides=list(chosen)), resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def known_settings(conf: Path) -> list[str]:
    """Dotted names of every setting of the default configuration, and every group."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        tree = OmegaConf.to_container(compose("config"), resolve=False)
    return [*_flatten(tree, ""), *groups(conf)]


def groups(conf: Path) -> list[str]:
    """Names of the folders of choices: `strategy`, `strategy/pruning`, ..."""
    return sorted({str(path.parent.relative_to(conf)) for path in conf.rglob("*.yaml")} - {"."})


def _flatten(tree: Any, prefix: str) -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
