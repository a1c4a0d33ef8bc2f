"""Checks every setting of a configuration before anything is built from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, cast

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from archsmith.cli.command_line import program
from archsmith.cli.naming import CONF, config_groups
from archsmith.data.benchmark import Benchmark
from archsmith.errors import ConfigError
from archsmith.loggers.start import LOGGERS, Name
from archsmith.result.export.files import check_export
from archsmith.result.limits import Budget
from archsmith.result.predict import PredictSettings
from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import checkpoint_seconds
from search_spaces.settings import Range, problems


@dataclass(frozen=True)
class General:
    """The settings outside all groups."""

    seed: Annotated[int, Range(ge=0, lt=2**63)]
    device: Annotated[str, "auto, cpu, cuda or cuda:N"]
    resume: Literal["auto", "never", "force"]
    architecture: Annotated[str | None, "the name of a file or null"]
    weights: Annotated[str | None, "the name of a file or null"]
    loggers: Annotated[list[Name], f"a list of {', '.join(LOGGERS)}"]
    images: Annotated[str | list[str] | None, "a file, folder or pattern, or a list of them"]


# What takes the settings of a group that names no `_target_`
TAKERS: dict[str, Callable[..., Any]] = {
    "search": SearchSettings,
    "checkpoint": checkpoint_seconds,
    "benchmark": Benchmark,
    "budget": Budget,
    "export": check_export,
    "predict": PredictSettings,
}


def check_settings(config: DictConfig) -> None:
    """Raises ConfigError for all settings that do not fit the annotations of what takes them."""
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    wrong = _not_chosen(plain)
    if not wrong:
        wrong = problems(General, {field.name: plain[field.name] for field in fields(General)})
        for name, given in plain.items():
            wrong += _problems(given, name, TAKERS.get(name))
    if wrong:
        raise ConfigError("; ".join(wrong))


def _not_chosen(plain: Mapping[str, Any]) -> list[str]:
    """Groups (`strategy/pruning`) without settings: their choices were written with dots."""
    found = []
    for group in config_groups(CONF):
        value: Any = plain
        for name in group.split("/"):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping):
            found.append(
                f"{group.replace('/', '.')}: expected settings in {{}} or null, found {value!r}; "
                f"a choice is written {group}=..., {program()} task=list shows them"
            )
    return found


def _problems(given: Any, path: str, taker: Callable[..., Any] | None = None) -> list[str]:
    """Wrong settings of a configured object, and of the objects nested in it."""
    if not isinstance(given, Mapping):
        return [f"{path}: expected settings in {{}}, found {given!r}"] if taker else []
    found = [line for name, one in given.items() for line in _problems(one, f"{path}.{name}")]
    if isinstance(given.get("_target_"), str):
        try:
            taker = get_object(given["_target_"])
        except Exception:  # importing may raise anything; instantiation reports it
            return found
    live = {name for name, one in given.items() if str(name).startswith("_") or _names_code(one)}
    plain = {name: one for name, one in given.items() if name not in live}
    return found + (problems(taker, plain, path) if taker else [])


def _names_code(value: Any) -> bool:
    """Whether it is, or contains, an object to build."""
    if isinstance(value, list):
        return any(map(_names_code, value))
    if not isinstance(value, Mapping):
        return False
    return "_target_" in value or any(map(_names_code, value.values()))
