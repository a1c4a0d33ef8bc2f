"""What the command line prints: errors as one line with an exit code, and the available choices."""

import errno
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from archsmith import interrupt
from archsmith.cli import command_line
from archsmith.cli.command_line import program
from archsmith.errors import (
    CheckpointError,
    ConfigError,
    Failure,
    Interrupted,
    OutOfMemory,
    is_out_of_memory,
)
from archsmith.train.doubts import doubts, interval
from search_spaces.settings import nearest

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # the disk accepts no more writes
WIDTH = 120  # columns of a line about a choice
LEFT = (
    "report.html", "architecture.json", "cell_*.svg", "metrics.jsonl", "results.json",
    "weights.safetensors", "latency.csv", "export",
)  # fmt: skip
LAUNCHERS = {  # Hydra's name of a launcher -> the optional dependencies with it
    "joblib": "joblib", "submitit_slurm": "submitit", "submitit_local": "submitit", "ray": "ray",
}  # fmt: skip
LISTED = (
    "strategy", "strategy/relaxation", "strategy/mixed_op", "strategy/topology",
    "strategy/update", "strategy/losses", "strategy/pruning", "strategy/stopping",
    "strategy/regularisation", "strategy/preference", "strategy/discretisation",
    "strategy/schedule", "strategy/alpha_schedule",
    "space", "data", "retrain", "baseline", "runtime", "experiment",
    "hydra/launcher",
)  # fmt: skip
BUILT_IN = {
    "hydra/launcher": {
        "basic": "One job after the other, here (the default).",
        "submitit_local": "As slurm does, but here and all at once: to try it.",
    }
}  # choices that come from Hydra or its plugins


def choice_names(conf: Path, group: str) -> list[str]:
    """The names of a group's choices."""
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))


def list_choices(conf: Path) -> str:
    """Every choice of every group, with the start of the comment at the head of its YAML."""
    lines = []
    for group in LISTED:
        start = {"strategy/losses": "+", "hydra/launcher": "-m "}.get(group, "")
        comments = {n: _comment(conf / group / f"{n}.yaml") for n in choice_names(conf, group)}
        comments |= BUILT_IN.get(group, {})
        lines += ["", f"{start}{group}=...", *(f"  {n:<22} {said}" for n, said in comments.items())]
    return "\n".join(lines[1:])


def _comment(path: Path) -> str:
    """The comment at the head of a file, shortened to a line."""
    head = re.match(r"(#.*\n)*", path.read_text(encoding="utf-8"))
    lines = re.sub(r"# @package .*", "", head[0]).splitlines() if head else []
    return textwrap.shorten(
        " ".join(line.lstrip("# ") for line in lines), WIDTH, placeholder=" ..."
    )


def explain(
    error: BaseException, conf: Path, known_settings: Callable[[], list[str]], *, composed: bool
) -> tuple[int, str | None]:
    """Exit code and one line for an error; no line for a bug of ours, whose traceback is shown.

    Until the configuration is `composed`, every error counts as a command-line error.
    """
    for cause in _chain(error):
        if isinstance(cause, Failure):
            line = str(cause)
            return cause.exit_code, _located(line) if isinstance(cause, ConfigError) else line
        if isinstance(cause, OSError) and cause.errno in DISK and composed:
            return CheckpointError.exit_code, (
                f"{cause.filename or 'the run directory'}: {cause.strerror}; what was saved is "
                "kept; free space or mend the disk, then run the same command"
            )
        if isinstance(cause, FileExistsError | NotADirectoryError | PermissionError):
            return ConfigError.exit_code, (
                f"{cause.filename or 'the run directory'}: {cause.strerror}, expected a folder "
                "that can be written; move it away, or set hydra.run.dir"
            )
        if isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG:
            return ConfigError.exit_code, (
                f"a path is too long for this disk, found '{str(cause.filename)[:60]}...'; shorten "
                "the setting that names it"
            )
        if "does not have a deterministic implementation" in str(cause):
            return ConfigError.exit_code, _not_deterministic(cause)
        if is_out_of_memory(cause):
            return OutOfMemory.exit_code, (
                f"out of memory ({one_line(cause)[:200]}); lower search.batch_size, "
                "retrain.batch_size or the network's channels and layers"
            )
    kind = type(error).__module__.partition(".")[0]
    if kind in LAUNCHERS.values():  # a job's process died
        return _lost_worker(kind, error)
    if kind in ("hydra", "omegaconf") or not composed:
        return ConfigError.exit_code, _configuration_line(error, conf, known_settings)
    return 1, None


def _not_deterministic(error: BaseException) -> str:
    """torch names the operation first."""
    return (
        f"runtime.deterministic: {str(error).split()[0]} is never deterministic on this device; "
        "set runtime.deterministic=false, or device=cpu"
    )


def _lost_worker(launcher: str, error: BaseException) -> tuple[int, str]:
    if interrupt.requested():
        return Interrupted.exit_code, "sweep: stopped; what was saved is kept, run the same command"
    return OutOfMemory.exit_code, (
        f"sweep: a process of {launcher} ended before its job ({one_line(error)[:200]}), often for "
        "want of memory; run the same command again, with fewer jobs at once "
        "(hydra.launcher.n_jobs) or more memory for each"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _configuration_line(
    error: BaseException, conf: Path, known_settings: Callable[[], list[str]]
) -> str:
    """Hydra's message in one line, with the closest existing name."""
    text = str(error)
    group, _, name = (getattr(error, "missing_cfg_file", None) or "").rpartition("/")
    options = choice_names(conf, group) if group else []
    choice = re.search(r"Could not override '([^']+)'", text)
    if group == "hydra/launcher" and name in LAUNCHERS:
        return (
            f"hydra/launcher: '{name}' is not installed; "
            f"pip install -e '.[{LAUNCHERS[name]}]' in Archsmith's folder"
        )
    if options:
        return f"{group}: unknown '{name}'{nearest(name, options)}; known: {', '.join(options)}"
    if choice and (swept := _swept_group(choice[1], conf)):
        return (
            f"{choice[1]}: not a setting of the default {swept}, with which a sweep over {swept} "
            f"is composed first; write ++{choice[1]}=..., for all of them"
        )
    if choice and choice[1] in (known := known_settings()):
        return f"{choice[1]}: not a setting of what is chosen here (strategy, space, data, retrain)"
    if choice:
        return f"unknown setting '{choice[1]}'{nearest(choice[1], known)}; see {program()} --help"
    groups = _not_choices(conf)
    if groups and (isinstance(error, TypeError) or "Config group override must be" in text):
        # Hydra does not say which group
        return f"{', '.join(groups)}: expected names of choices; {program()} task=list shows them"
    override = getattr(error, "override", None)
    if override is not None:
        return (
            f"command line: '{override}' cannot be read, expected name=value; a value with spaces, "
            """commas or brackets is quoted, as 'name="a, b"'"""
        )
    return re.sub(r"\s*See https?://\S+( for details)?", "", one_line(error))


def _located(line: str) -> str:
    """An error line that names a setting; if it names none, all given overrides are listed."""
    given = [override for override in sys.argv[1:] if "=" in override]
    leaves = (override.partition("=")[0].rpartition(".")[2] for override in given)
    if not given or re.search(r"\b\w+\.\w+|\w: ", line) or any(leaf in line for leaf in leaves):
        return line
    return f"{line}; found in one of: {' '.join(given)}"


def _not_choices(conf: Path) -> list[str]:
    """Overrides that set a configuration group to something other than one of its choices."""
    given = (override.lstrip("+").partition("=") for override in sys.argv[1:])
    return [
        f"{name}={value}"
        for name, _, value in given
        if (conf / name).is_dir() and value not in choice_names(conf, name)
    ]


def _swept_group(setting: str, conf: Path) -> str | None:
    """The group with several values on the command line that a setting belongs to."""
    given = (override.partition("=") for override in sys.argv[1:])
    swept = (name for name, _, value in given if "," in value and (conf / name).is_dir())
    return next((name for name in swept if setting.startswith(name.replace("/", ".") + ".")), None)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


def _width(told: Mapping[str, Any]) -> str:
    """The width of a hand-designed network, as a share of the published one."""
    if "width" not in told:
        return ""
    return f" ({told['width']:.3g} of its width, {told['parameters']:,} parameters)"


def _bits(told: Mapping[str, Any]) -> str:
    """The measure of a network that reads text; nothing for images."""
    bits = told.get("test_bits_per_character")
    return "" if bits is None else f"{bits:.3f}"


def _rivals(results: Mapping[str, Any]) -> dict[str, str]:
    """The accuracies of networks that were trained for comparison, their widths, their bits."""
    rows = {}
    for name, told in (results["baseline"] or {}).items():
        bits = _bits(told)
        more = f", {bits} bits per character" if bits else ""
        rows[f"test accuracy ({name})"] = _percent(told["test_accuracy"]) + _width(told) + more
    return rows


def _quantised(told: Mapping[str, Any] | None) -> str:
    """The accuracy of the quantised network, and how often it answers as the network does."""
    if told is None:
        return ""
    return f"{_percent(told['accuracy'])} (the same answer for {_percent(told['agreement'])})"


def result_summary(results: Mapping[str, Any], folder: Path, following: Sequence[str]) -> str:
    """What a run found, where it is stored, and which commands may follow."""
    from archsmith.result.limits import budget_line
    from archsmith.result.outcome import beside_random

    seconds = (f"{phase} {value:.0f}" for phase, value in results["seconds"].items())
    budget, where = results["budget"], interval(results)
    tested = _percent(results["test_accuracy"])
    rows = {
        "supernet accuracy (select)": _percent(results["supernet_accuracy"]),
        "discretised accuracy (select)": _percent(results["discretised_accuracy"]),
        "test accuracy (retrained)": f"{tested} (95% interval {where})" if where else tested,
        "bits per character (retrained)": _bits(results),
        **_rivals(results),
        "test accuracy (int8)": _quantised(results["int8"]),
        "beside random architectures": beside_random(results),
        "parameters": _count(results["parameters"]),
        "multiply-accumulates": _count(results["macs"]),
        **{
            f"{name} (as searched)": f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"
            for name, value in (results["searched_costs"] or {}).items()
        },
        "budget": budget_line(budget).removeprefix("budget: ") if budget else "",
        "seconds": ", ".join(seconds),
        "times the test split was read": str(results["test_reads"]),
    }
    there = [name for name in LEFT if any(folder.glob(name))]
    lines = [
        "",
        f"{results['strategy']} on {results['space']}, {results['data']}, seed {results['seed']}",
        *(f"  {name:<31} {value}" for name, value in rows.items() if value),
        "",
        f"  everything is in {command_line.shown_path(folder)}: {', '.join(there)}",
        *(f"  beware: {doubt}" for doubt in doubts(results)),
        *(["Next:"] if following else []),
        *(f"  {command}" for command in following),
    ]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
