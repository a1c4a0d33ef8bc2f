"""`task=check`: what a run will meet, before it trains: images, a fitting stem, time, memory."""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.command.check_text import check_text
from engine.command.preflight import preflight
from engine.data.loader import Loader
from engine.data.survey import Survey
from engine.errors import DataError
from engine.files import write_atomically
from engine.final.network import final_space
from engine.final.training import Training
from engine.job import Job
from engine.runtime import describe_device, peak_memory, seed_everything
from engine.search.time_budget import LONG, timed, timed_epoch
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.random_search import RandomSearch
from supernets.forms import use_form
from supernets.network import final_network

FORMAT = "archsmith.preflight/1"
IMBALANCE = 3.0  # largest class over smallest; a run warns from 10 on (engine.data.roles)
FEW = 10  # images of a class
LARGE = 128  # pixels from which the stem that divides by 8 leaves cells maps of 4 and more
DRAWS = 3  # architectures of which a retraining's step is timed
Range = dict[str, float]  # median, low, high


def check(
    folder: Path, survey: Callable[[], Survey] | None, make_job: Callable[[], Job], command: str
) -> str:
    """The report as text; also `preflight.txt` and `preflight.json` in the folder.

    Args:
        survey: looks at the files of a folder of images; None for other data.
        command: what starts the run itself.

    Raises:
        DataError: there are unreadable files that the run would refuse; the report names them all.
        ConfigError: settings that cannot work together.
    """
    files = survey() if survey is not None else None
    if files is not None and files.refused:
        _write(folder, {"files": asdict(files), "ready": False})
        bad = [reason for reasons in files.unreadable.values() for reason in reasons]
        raise DataError(
            f"{len(bad)} images cannot be read: {', '.join(bad[:10])}"
            f"{', ...' if len(bad) > 10 else ''}; all are named in {folder / 'preflight.txt'}; "
            "repair or delete them"
        )
    job = make_job()
    phases = ("retrain",) if job.architecture is not None else ("search", "retrain")
    preflight(job, phases)
    report: dict[str, Any] = {"data": _data(job, files), "device": describe_device(job.device)}
    report["stem"] = suggested_stem(job.space, final_space(job.space, job.recipe))
    job.data.to(job.device)
    if "search" in phases:
        report["search"] = _search(job)
    report["retrain"] = _retraining(job)
    report["warnings"] = warnings_of(report)
    report |= {"files": asdict(files) if files else None, "ready": True, "command": command}
    return _write(folder, report)


# -- what there is
# -------------------------------------------------------------------------------------------


def _data(job: Job, files: Survey | None) -> dict[str, Any]:
    data = job.data
    labels = torch.bincount(data.images.labels, minlength=len(data.classes)).tolist()
    return {
        "name": data.name,
        "input_shape": list(data.input_shape),
        "classes": len(data.classes),
        "train": dict(zip(data.classes, labels, strict=True)),  # val, too, where it is a part
        "test": files.images["test"] if files else None,
        "skipped": data.skipped,
    }


def suggested_stem(space: Space, final: Space) -> dict[str, Any]:
    """The stems of supernet and final network, and the one that fits the images' size."""
    _, height, width = space.input_shape
    fitting = "imagenet" if min(height, width) >= LARGE else "small"
    choice = "stem" in space.settings
    now = [space.stem if choice else "small", final.stem if choice else "small"]
    if all(stem == fitting for stem in now):
        remedy = None
    elif choice:
        remedy = f"space.stem={fitting} retrain.stem={fitting}"
    else:
        remedy = f"data.image_size=32, as space {space.name} has no stem for large images"
    return {"search": now[0], "retrain": now[1], "suggested": fitting, "set": remedy}


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """What a person should look at before the run; from `data` and `stem` of the report."""
    found = []
    counts = report["data"]["train"]
    most, fewest = max(counts, key=counts.get), min(counts, key=counts.get)
    if counts[most] >= IMBALANCE * counts[fewest]:
        found.append(
            f"imbalanced: '{most}' has {counts[most]} images, '{fewest}' {counts[fewest]}; read "
            "test_balanced_accuracy, or add images"
        )
    if counts[fewest] < FEW:
        found.append(f"'{fewest}' has {counts[fewest]} images: too few to learn or to measure")
    if report["data"]["skipped"]:
        found.append(f"{report['data']['skipped']} unreadable images are left out")
    stem = report["stem"]
    if stem["set"]:
        height, width = report["data"]["input_shape"][1:]
        found.append(f"{height}x{width} images suit stem '{stem['suggested']}': set {stem['set']}")
    return found


# -- what it will take
# ---------------------------------------------------------------------------------------


def _search(job: Job) -> dict[str, Any] | None:
    """Time and memory of the search, from steps of the real supernet; None without a search."""
    seed_everything(job.seed)
    strategy = job.strategy(job.space)
    if not strategy.searches:
        return None
    net = job.supernet(strategy)
    strategy.micro_batches = job.search.micro_batches
    one_level = not strategy.update.two_level
    roles = job.data.loaders(job.search.batch_size, one_level=one_level, seed=job.seed)
    _forget_peak(job.device)
    timing = timed_epoch(net, strategy, roles, time.perf_counter)
    loading = _loading(roles.train) * (1 if one_level else 2)
    steps, epochs = len(roles.train), job.search.epochs

    def of(pick: Callable[[list[float]], float]) -> float:
        return steps * (timing.step(strategy.warmup, pick) + loading) + timing.measuring

    epoch = {"median": of(statistics.median), "low": of(min), "high": of(max)}
    if job.search.seconds is not None:
        epochs = max(1, round(job.search.seconds / epoch["median"]))
    return {
        "epochs": epochs,
        "steps_an_epoch": steps,
        "seconds": {name: epochs * value for name, value in epoch.items()},
        "peak_memory_bytes": peak_memory(job.device),
    }


def _retraining(job: Job) -> dict[str, Any]:
    """Time and memory of the retraining, of the given architecture or of some drawn ones."""
    space, recipe = final_space(job.space, job.recipe), job.recipe
    seed_everything(job.seed)
    draw = RandomSearch(job.space)
    some: Sequence[Architecture] = (
        [job.architecture] if job.architecture else [draw.architecture() for _ in range(DRAWS)]
    )
    loader = job.data.training(recipe.batch_size, job.seed, augment=recipe.augment)
    loading = _loading(loader)
    seconds: list[list[float]] = []
    x = torch.randn(min(recipe.batch_size, len(loader.index)), *space.input_shape)
    y = torch.randint(space.classes, (len(x),))
    x, y = x.to(job.device), y.to(job.device)
    _forget_peak(job.device)
    for architecture in some:
        if sum(map(sum, seconds)) > LONG:
            break
        auxiliary = recipe.auxiliary_weight > 0
        net = final_network(space, architecture, auxiliary=auxiliary).to(job.device)
        use_form(net, job.form, job.device)
        training = Training(net, loader, recipe)
        net.train()
        seconds.append(timed(partial(training.step, x, y), job.device, time.perf_counter))
    every = [value for one in seconds for value in one]
    steps = recipe.epochs * len(loader)
    step = {"median": statistics.median(every), "low": min(every), "high": max(every)}
    return {
        "epochs": recipe.epochs,
        "steps_an_epoch": len(loader),
        "seconds": {name: steps * (value + loading) for name, value in step.items()},
        "peak_memory_bytes": peak_memory(job.device),
        "architectures": len(seconds),
    }


def _loading(loader: Loader) -> float:
    """Median seconds a batch of images takes to be read and augmented."""
    seconds, began = [], time.perf_counter()
    for _ in itertools.islice(loader, 7):
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return statistics.median(seconds[1:] or seconds)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _write(folder: Path, report: dict[str, Any]) -> str:
    content = json.dumps({"format": FORMAT, **report}, indent=2) + "\n"
    write_atomically(folder / "preflight.json", content.encode())
    text = check_text(report)
    write_atomically(folder / "preflight.txt", text.encode())
    return text
