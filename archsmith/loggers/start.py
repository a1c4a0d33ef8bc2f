"""The loggers by name, and their start."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from archsmith.errors import ConfigError
from archsmith.loggers.logger import Logger, Loggers
from archsmith.loggers.mlflow import MLflow
from archsmith.loggers.tensorboard import TensorBoard
from archsmith.loggers.wandb import WandB

Name = Literal["tensorboard", "mlflow", "wandb"]
LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def check_loggers(names: Iterable[str]) -> None:
    """Raises ConfigError if a logger's package is not installed."""
    missing = [name for name in names if not _installed(LOGGERS[name].package)]
    if missing:
        raise ConfigError(
            f"loggers: {', '.join(missing)} is not installed; "
            f"pip install 'archsmith[{','.join(missing)}]', or leave it out"
        )


def started(names: Iterable[str], folder: Path, settings: Mapping[str, Any]) -> Loggers:
    """The loggers of a run, which continue where the folder was logged before.

    `settings` by dotted names. Raises ConfigError if one cannot start.
    """
    return Loggers([_started(LOGGERS[name], name, folder, settings) for name in names])


def _installed(package: str) -> bool:
    """A folder `wandb` of runs in the working directory is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _started(kind: type[Logger], name: str, folder: Path, settings: Mapping[str, Any]) -> Logger:
    try:
        return kind(folder, settings)
    except Exception as error:  # before the search; what a library raises is not known
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"loggers: {name} cannot start ({type(error).__name__}: {said}); set it up, or leave "
            "it out"
        ) from error
