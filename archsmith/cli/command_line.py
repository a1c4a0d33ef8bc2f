"""Command lines to copy and paste: the one that repeats a run, and those that may follow it."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from archsmith.errors import ConfigError

OWN = Path(__file__).resolve().parents[2]  # the folder of run.py
PLACE = ("hydra.run.dir", "hydra.sweep.dir", "hydra.mode")
LONGER = 10  # factor on the retraining epochs
SEEDS = "seed=0,1,2"


def program() -> str:
    """The words that started this process: the console script, or Python with run.py."""
    started = Path(sys.argv[0])
    if started.suffix != ".py":
        found = shutil.which(started.name)
        same = found is not None and Path(found).resolve() == started.resolve()
        return shlex.quote(started.name if same else str(started))
    script = started if started.name == "run.py" else OWN / "run.py"
    if not script.is_file():  # an installed package has none
        return f"{python()} -m archsmith"
    return f"{python()} {shlex.quote(shown_path(script))}"


def python() -> str:
    """This interpreter: `python` if that is what the PATH finds, else its full path."""
    return "python" if shutil.which("python") == sys.executable else shlex.quote(sys.executable)


def options_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments with options such as -m before all overrides, as Hydra's parser requires.

    Raises SystemExit for an unknown option, as that parser does.
    """
    overrides = list(get_args_parser().parse_intermixed_args(list(arguments)).overrides)
    options: list[str] = []
    left = list(overrides)
    for argument in arguments:
        if left and argument == left[0]:
            left.pop(0)
        else:
            options.append(argument)
    return [*options, *overrides]


def check_options(arguments: Sequence[str]) -> None:
    """Raises ConfigError for options that would bypass Archsmith's own configuration."""
    given = get_args_parser().parse_known_args(list(arguments))[0]
    if given.config_path is None and given.config_name is None:
        return
    again = f"{program()} <the overrides in its .hydra/overrides.yaml>"
    path = Path(given.config_path or "") / "overrides.yaml"
    if path.is_file():
        again = str(CommandLine((program(),), tuple(map(str, OmegaConf.load(path)))))
    raise ConfigError(
        "--config-path, --config-name: not here; choices of your own lie in a folder that "
        f"--config-dir names, and a run is repeated by {again}"
    )


def shown_path(path: Path) -> str:
    """A path relative to the working directory if it lies below it, else unchanged."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def setting_of(override: str) -> str:
    """The setting or group that an override changes: `data.root` for `+data.root=photos`."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


@dataclass(frozen=True)
class CommandLine:
    """A command: the words before its overrides, and the overrides, unquoted."""

    start: tuple[str, ...]
    overrides: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([*self.start, *map(shlex.quote, self.overrides)])

    def without(self, *names: str) -> "CommandLine":
        """A copy without the overrides of these settings and groups and anything below them."""
        below = tuple(name + end for name in names for end in (".", "/"))
        kept = (
            override
            for override in self.overrides
            if setting_of(override) not in names and not setting_of(override).startswith(below)
        )
        return replace(self, overrides=tuple(kept))

    def having(self, **settings: Any) -> "CommandLine":
        """A copy in which these settings replace earlier overrides of them."""
        said = tuple(f"{name}={value}" for name, value in settings.items())
        rest = [o for o in self.overrides if setting_of(o) not in settings]
        return replace(self, overrides=(*rest, *said))

    def changes(self, group: str) -> bool:
        """Whether the command line overrides settings or nested choices of a group."""
        below = (f"{group}.", f"{group}/")
        return any(setting_of(override).startswith(below) for override in self.overrides)


def swept() -> bool:
    """Whether this run is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def typed() -> CommandLine:
    """This run's command, without the overrides that only a sweep adds."""
    given = HydraConfig.get().overrides
    placed = [one for one in given.hydra if setting_of(one) != "hydra.mode"]
    if swept():
        placed = [one for one in placed if not setting_of(one).startswith("hydra")]
    return CommandLine(_start(), (*given.task, *placed))


def _start() -> tuple[str, ...]:
    """The user's own PYTHONPATH, the program, and `--config-dir` if it was given."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [path for path in given if path not in ("", str(OWN))]
    before = [f"PYTHONPATH={shlex.quote(os.pathsep.join(paths))}"] if paths else []
    folder = get_args_parser().parse_known_args(sys.argv[1:])[0].config_dir
    return (*before, program(), *(["--config-dir", shlex.quote(folder)] if folder else []))


Following = Callable[[CommandLine, Mapping[str, Any], Mapping[str, Any], str], list[str]]


def next_commands(
    line: CommandLine,
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    folder: Path,
    following: Following,
) -> list[str]:
    """Commands that may follow a run, to be typed in the directory where the run was started.

    `following` comes from the run's task (`archsmith/cli/tasks.py`).
    """
    here = shown_path(folder)
    look = [f"tensorboard --logdir {shlex.quote(here)}"] * (folder / "tensorboard").is_dir()
    model = folder / "export" / "model.py"
    use = [f"{python()} {shlex.quote(shown_path(model))}"] * model.is_file()
    return [*look, *use, *following(line, config, results, here)]


def nothing(*_: object) -> list[str]:
    """For tasks without a next command."""
    return []


def then(task: str) -> Following:
    """The same command with another task, in the same folder."""
    return lambda line, config, results, here: [str(line.having(task=task))]


def others(
    line: CommandLine, config: Mapping[str, Any], results: Mapping[str, Any], here: str
) -> list[str]:
    """A longer retraining of the architecture, a sweep over strategies and seeds, a comparison."""
    epochs = LONGER * config["retrain"]["epochs"]
    longer = line.without("weights", "resume", "budget", *PLACE).having(
        task="all", architecture=_value(here), **{"retrain.epochs": epochs}
    )
    if swept():
        return [str(longer), _compare(str(Path(here).parent))]
    sweep = line.without("task", "resume", "seed", *PLACE)
    compared = not line.changes("strategy") and results.get("has_supernet", True)
    if compared and config["architecture"] is None:
        other = "random" if results["strategy"] != "random" else "darts"
        sweep = sweep.having(strategy=f"{results['strategy']},{other}")
    sweep = replace(sweep, start=(*sweep.start, "-m"), overrides=(*sweep.overrides, SEEDS))
    return [str(longer), str(sweep), _compare("outputs")]


def _compare(runs: str) -> str:
    where = [] if runs == "outputs" else [f"runs={_value(runs)}"]
    return str(CommandLine((program(),), ("task=compare", *where)))


def _value(path: str) -> str:
    """A path as the value of an override, quoted if Hydra's grammar requires it."""
    if re.fullmatch(r"[\w./~-]+", path):
        return path
    escaped = path.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'"
