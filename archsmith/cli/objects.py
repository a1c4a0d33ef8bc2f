"""Builds objects from the configuration: Hydra's composed configuration in, a `Job` out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from archsmith.cli import naming
from archsmith.cli.command_line import setting_of
from archsmith.cli.messages import choice_names, one_line
from archsmith.cli.naming import CONF
from archsmith.cli.settings import TAKERS, check_settings
from archsmith.cli.tasks import IMAGES, task_of
from archsmith.data.roles import Data
from archsmith.errors import ConfigError, Failure, configuring
from archsmith.job import Job
from archsmith.loggers.start import check_loggers
from archsmith.parallel.devices import local_device
from search_spaces.architecture import Architecture
from search_spaces.genotype import published
from search_spaces.settings import located, setting
from search_spaces.space import Space


@dataclass(frozen=True)
class Own:
    """What a library call (`archsmith.find`) passes in, instead of what Hydra's main provides."""

    hydra: Any  # Hydra's settings of the composed configuration: choices and overrides
    folder: Path
    data: Callable[[], Data]  # called after the settings are checked
    operations: Mapping[str, Callable[..., Any]]  # candidates in addition to the space's


def build(node: DictConfig, path: str, **live: Any) -> Any:
    """The object that the configuration at this path names; a `_partial_` one is called with the
    live objects. Raises ConfigError, which names the setting."""
    try:
        made = instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, Failure):
            raise cause from error
        nested = re.search(r"full_key: (\S+)$", str(error))
        where = nested[1] if nested else path
        raise ConfigError(located(where, one_line(cause or error))) from error
    with configuring(), setting(path):
        return made(**live) if live else made


def _settings(config: DictConfig, group: str) -> Any:
    """What takes the settings of a group, called with them."""
    plain = cast(dict[str, Any], OmegaConf.to_container(config[group], resolve=True))
    with setting(group):
        return TAKERS[group](**plain)


def given_architecture(
    name: str | None, weights: str | None
) -> tuple[Architecture | None, Path | None]:
    """The architecture of a file, run directory or published name, and its weights, if any."""
    if name is None:
        if weights is not None:
            raise ConfigError("weights: found without an architecture; set architecture=<file> too")
        return None, None
    path, weights_path = Path(name), Path(weights) if weights else None
    if path.is_dir():
        weights_path = weights_path or path / "weights.safetensors"
        path = path / "architecture.json"
    elif not path.exists() and re.fullmatch(r"\w+", name):
        path = published(name)
    return Architecture.load(path), weights_path


def build_space(
    config: DictConfig,
    data: Data,
    architecture: Architecture | None,
    said: Sequence[str],
    operations: Mapping[str, Callable[..., Any]],
) -> Space:
    """The configured space; for a given architecture the space that it names, from conf/space.

    Args:
        said: the settings and groups that the command line sets.
        operations: a library user's own; all are candidates unless `space.candidates` names some.
    """
    shapes = {"input_shape": tuple(data.input_shape), "classes": len(data.classes)}
    live: dict[str, Any] = {**shapes, "operations": operations} if operations else shapes
    more = {}
    if operations and "space.candidates" not in said:
        more["candidates"] = [*config.space.candidates, *operations]
    chosen: Space = build(config.space, "space", **live, **more)
    if architecture is None:
        return chosen
    name = architecture.space["name"]
    if name != chosen.name:
        if "space" in said:
            architecture.check(chosen, "architecture")
        file, known = CONF / "space" / f"{name}.yaml", choice_names(CONF, "space")
        if name not in known:
            raise ConfigError(
                f"architecture: found in space '{name}', which is not one of ours "
                f"({', '.join(known)}); "
                "set space=... to the configuration it was found in"
            )
        chosen = build(cast(DictConfig, OmegaConf.load(file)), "space", **live)
    return _resized(chosen, architecture, shapes)


def _resized(space: Space, architecture: Architecture, shapes: dict[str, Any]) -> Space:
    """The space at the size that a file names. Raises ConfigError for a file that does not fit."""
    settings: dict[str, Any] = {
        key: value for key, value in architecture.space.items() if key != "name"
    }
    unknown = sorted(set(settings) - set(space.settings))
    if unknown:
        raise ConfigError(
            f"architecture: space '{space.name}' has no setting '{unknown[0]}'; known: "
            f"{', '.join(space.settings)}"
        )
    try:
        with setting("space"):
            sized = space.resize(**settings | shapes)
        architecture.check(sized)
    except (KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"architecture: its space '{space.name}' cannot be built ({type(error).__name__}: "
            f"{one_line(error)}); expected a file that a search wrote"
        ) from error
    return sized


def _check_input(space: Space, data: Data) -> None:
    """Raises ConfigError if one is of text and the other of images."""
    if data.reads_text and not space.reads_text:
        raise ConfigError(
            f"space: {space.name} reads images, and data={data.name} is text; set space=gpt"
        )
    if space.reads_text and not data.reads_text:
        raise ConfigError(
            f"space: {space.name} reads text, and data={data.name} is images; set data=text, or "
            "space=vit"
        )


def placeholder() -> DictConfig:
    """A data set that needs no files, for tasks that read no images."""
    node = OmegaConf.load(CONF / "data" / f"{naming.DATA}.yaml")
    return cast(DictConfig, OmegaConf.merge(node, {"seed": 0}))


def _reads_images(config: DictConfig) -> bool:
    """Whether the task needs images; an export does where it quantises."""
    task = task_of(config)
    return IMAGES in task.needs or ("export" in task.phases and "int8" in config.export.formats)


def make_job(config: DictConfig, own: Own | None = None) -> Job:
    """All objects of a run; a wrong setting is rejected before any large allocation."""
    hydra_config = own.hydra if own else HydraConfig.get()
    unread = own is None and config.architecture is not None and not _reads_images(config)
    if own is None and not unread:
        naming.check_given(config, hydra_config)
    with configuring():
        check_settings(config)
        check_loggers(config.loggers)
        architecture, weights = given_architecture(config.architecture, config.weights)
        groups = {group: _settings(config, group) for group in TAKERS}
        runtime, recipe = build(config.runtime, "runtime"), build(config.retrain, "retrain")
        baseline = None if config.baseline is None else build(config.baseline, "baseline")
        strategy = build(config.strategy, "strategy")
        device = runtime.start(local_device(config.device), config.seed)
    data = _data(config, own, unread)
    with configuring():
        said = [setting_of(override) for override in hydra_config.overrides.task]
        space = build_space(config, data, architecture, said, own.operations if own else {})
        if not unread:
            _check_input(space, data)
    return Job(
        **_identity(config, hydra_config, own, data),
        fingerprint=naming.given_fingerprint(config) if unread else data.fingerprint(),
        **{name: config[name] for name in ("resume", "seed")},
        **{name: groups[name] for name in ("search", "benchmark", "budget")},
        checkpoint_seconds=groups["checkpoint"],
        formats=list(config.export.formats),
        measures_latency=config.export.latency,
        loggers=list(config.loggers),
        device=device,
        runtime=runtime,
        data=data,
        space=space,
        strategy=strategy,
        recipe=recipe,
        baseline=baseline,
        architecture=architecture,
        weights=weights,
    )


def _data(config: DictConfig, own: Own | None, unread: bool) -> Data:
    """The images of a run. A user's own errors are not about settings."""
    if own is not None:
        return own.data()
    built: Data = build(placeholder() if unread else config.data, "data")
    return built


def _identity(config: DictConfig, hydra_config: Any, own: Own | None, data: Data) -> dict[str, Any]:
    """The fields of a job that say which run it is."""
    names, settings = naming.chosen_names(config, hydra_config), naming.job_settings(config)
    if own is None:
        folder = Path(hydra_config.runtime.output_dir)
        return {"names": names, "settings": settings, "folder": folder}
    names |= {"data": data.name}
    return {
        "names": names,
        "settings": settings | {"operations": sorted(own.operations)},
        "folder": own.folder,
    }
