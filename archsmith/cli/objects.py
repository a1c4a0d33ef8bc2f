"""Builds objects from the configuration: Hydra's composed configuration in, a `Job` out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from archsmith.cli import naming
from archsmith.cli.command_line import setting_of
from archsmith.cli.messages import one_line
from archsmith.cli.naming import CONF
from archsmith.cli.settings import check_groups, check_types, settings
from archsmith.cli.tasks import IMAGES, task_of
from archsmith.data.benchmark import Benchmark
from archsmith.data.roles import Data
from archsmith.errors import ConfigError, Failure, configuring
from archsmith.job import Job
from archsmith.parallel import distributed
from archsmith.result.export.files import check_formats
from archsmith.result.limits import Budget
from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import checkpoint_seconds
from archsmith.train.run_folder import RESUME
from search_spaces.architecture import Architecture
from search_spaces.genotype import published
from search_spaces.space import Space
from strategies.settings import located


def build(node: DictConfig, **live: Any) -> Any:
    """The object that a configuration names; a `_partial_` one is called with the live objects."""
    try:
        made = instantiate(node, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, Failure):
            raise cause from error
        said, key = one_line(cause or error), node._get_full_key("")
        where = re.search(r"full_key: (\S+)$", str(error))
        nested = where[1] if where and isinstance(cause, ValueError) else key
        if nested != key and not said.startswith(f"{key}."):
            said = located(nested, said)  # a nested object names only its parameter
        if isinstance(cause, TypeError):  # raised by Python: it names types, not the setting
            odd = [str(n) for n, v in node.items() if v is None or OmegaConf.is_config(v)]
            said += "".join(f"; found {key}.{name}={node.get(name)!r}" for name in odd)
        raise ConfigError(said if key in said else f"{key}: {said}") from error
    return made(**live) if live else made


def given_architecture(
    name: str | None, weights: str | None
) -> tuple[Architecture | None, Path | None]:
    """The architecture of a file, run directory or published name, and its weights, if any."""
    for key, value in (("architecture", name), ("weights", weights)):
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{key}: expected the name of a file or null, found {value!r}")
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
    shapes: dict[str, Any],
    architecture: Architecture | None,
    said: Sequence[str],
    operations: Mapping[str, Callable[..., Any]],
) -> Space:
    """The configured space; for a given architecture the space that it names, from conf/space.

    Args:
        said: the command line's overrides, which may choose a space.
        operations: a library user's own; all are candidates unless `space.candidates` names some.
    """
    live: dict[str, Any] = {**shapes, "operations": operations} if operations else shapes
    more: dict[str, Any] = {}
    if operations and not any(setting_of(override) == "space.candidates" for override in said):
        more["candidates"] = [*config.space.candidates, *operations]
    chosen: Space = build(config.space, **live, **more)
    if architecture is None:
        return chosen
    name = architecture.space["name"]
    if name != chosen.name:
        if any(override.startswith("space=") for override in said):
            architecture.check(chosen, "architecture")
        known = sorted(path.stem for path in (CONF / "space").glob("*.yaml"))
        if name not in known:
            raise ConfigError(
                f"architecture: found in space '{name}', which is not one of ours "
                f"({', '.join(known)}); "
                "set space=... to the configuration it was found in"
            )
        chosen = build(OmegaConf.load(CONF / "space" / f"{name}.yaml"), **live)  # type: ignore[arg-type]
    settings = {key: value for key, value in architecture.space.items() if key != "name"}
    unknown = sorted(set(settings) - set(chosen.settings))
    if unknown:
        raise ConfigError(
            f"architecture: space '{name}' has no setting '{unknown[0]}'; known: "
            f"{', '.join(chosen.settings)}"
        )
    try:
        space = chosen.resize(**settings | shapes)
        architecture.check(space)
    except (KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"architecture: its space '{name}' cannot be built ({type(error).__name__}: "
            f"{one_line(error)}); expected a file that a search wrote"
        ) from error
    return space


def _placeholder() -> DictConfig:
    """A data set that needs no files, for tasks that read no images."""
    node = cast(DictConfig, OmegaConf.load(CONF / "data" / f"{naming.DATA}.yaml"))
    return cast(DictConfig, OmegaConf.merge(node, {"seed": 0}))


@dataclass(frozen=True)
class Own:
    """What a library call (`archsmith.find`) passes in, instead of what Hydra's main provides."""

    hydra: Any  # Hydra's settings of the composed configuration: choices and overrides
    folder: Path
    data: Callable[[], Data]  # called after the settings are checked
    operations: Mapping[str, Callable[..., Any]]  # candidates in addition to the space's


def make_job(config: DictConfig, own: Own | None = None) -> Job:
    """All objects of a run; a wrong setting is rejected before any large allocation."""
    hydra_config = own.hydra if own else HydraConfig.get()
    needs = task_of(config).needs
    unread = own is None and IMAGES not in needs and config.architecture is not None
    _check_settings(config, hydra_config, given=own is None and not unread)
    with configuring():
        search = settings(SearchSettings, "search", config.search)
        recipe, runtime = build(config.retrain), build(config.runtime)
        architecture, weights = given_architecture(config.architecture, config.weights)
        device = runtime.start(distributed.local_device(config.device), config.seed)
        check_formats(config.export.formats)
        benchmark = settings(Benchmark, "benchmark", config.benchmark)
        budget = settings(Budget, "budget", config.budget)
        baseline = None if config.baseline is None else build(config.baseline)
        seconds = settings(checkpoint_seconds, "checkpoint", config.checkpoint)
        built: Any = None if own else build(_placeholder() if unread else config.data)
    data: Data = own.data() if own else built  # errors of a user's data set are not about settings
    with configuring():
        shapes = dict(input_shape=tuple(data.input_shape), classes=len(data.classes))
        said = list(hydra_config.overrides.task)
        space = build_space(config, shapes, architecture, said, own.operations if own else {})
        strategy = build(config.strategy)
        strategy(space)
    names, identity = naming.names(config, hydra_config), naming.identity(config)
    if own:
        names |= {"data": data.name}
        identity |= {"operations": sorted(own.operations)}
    return Job(
        names=names,
        settings=identity,
        folder=own.folder if own else Path(hydra_config.runtime.output_dir),
        resume=config.resume,
        checkpoint_seconds=seconds,
        seed=config.seed,
        device=device,
        runtime=runtime,
        data=data,
        fingerprint=naming.given_fingerprint(config) if unread else data.fingerprint(),
        space=space,
        strategy=strategy,
        search=search,
        recipe=recipe,
        formats=list(config.export.formats),
        benchmark=benchmark,
        budget=budget,
        baseline=baseline,
        architecture=architecture,
        weights=weights,
    )


def _check_settings(config: DictConfig, hydra_config: Any, *, given: bool) -> None:
    """Raises ConfigError for an implausible setting; with `given` also for images of the given run
    that cannot be loaded again."""
    if config.resume not in RESUME:
        raise ConfigError(f"resume: expected {', '.join(RESUME)}, found '{config.resume}'")
    whole = isinstance(config.seed, int) and not isinstance(config.seed, bool)
    if not whole or not 0 <= config.seed < 2**63:
        raise ConfigError(f"seed: expected a whole number of at least 0, found {config.seed!r}")
    if given:
        naming.check_given(config, hydra_config)
    with configuring():
        plain = OmegaConf.to_container(config, resolve=True)
        check_groups(plain, naming.groups(CONF))  # type: ignore[arg-type]
        check_types(plain, naming.defaults_of(hydra_config.overrides.task))  # type: ignore[arg-type]
