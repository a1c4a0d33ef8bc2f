"""`task=check`: a report before training on images, a suitable stem, time and memory."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch

from archsmith.cli.check_text import check_text
from archsmith.cli.expected import expected_retraining, expected_search
from archsmith.cli.preflight import preflight
from archsmith.cli.stem import fitting_stem
from archsmith.data.survey import Survey
from archsmith.errors import DataError
from archsmith.files import write_atomically
from archsmith.job import Job
from archsmith.phases.pipeline import phases_for
from archsmith.result.network import final_space
from archsmith.result.profile import profile
from archsmith.train.runtime import describe_device
from search_spaces.space import Space
from search_spaces.stems import STEMS

FORMAT = "archsmith.preflight/1"
IMBALANCE = 3.0  # largest class over smallest; a run warns only at 10 (archsmith.data.roles)
FEW = 10  # a class with fewer images than this gets a warning


def _refuse(files: Survey, folder: Path) -> NoReturn:
    """Writes the report of files that cannot be read, and raises DataError, which names ten."""
    _write(folder, {"files": asdict(files), "ready": False})
    bad = [reason for reasons in files.unreadable.values() for reason in reasons]
    raise DataError(
        f"{len(bad)} images cannot be read: {', '.join(bad[:10])}"
        f"{', ...' if len(bad) > 10 else ''}; all are named in {folder / 'preflight.txt'}; "
        "repair or delete them"
    )


def check_report(
    folder: Path,
    survey: Callable[[], Survey] | None,
    make_job: Callable[[], Job],
    command: str,
    phases: Sequence[str],
) -> str:
    """Returns the report as text; writes `preflight.txt` and `preflight.json` to the folder.

    Args:
        survey: inspects the files of an image folder; None for other data.
        command: the command that starts the run itself.
        phases: the phases to check; those that the job does not need are left out.

    Raises:
        DataError: some files are unreadable and the run would refuse them; the report lists them
            all.
        ConfigError: the settings are incompatible.
    """
    files = survey() if survey is not None else None
    if files is not None and files.refused:
        _refuse(files, folder)
    job = make_job()
    phases = phases_for(job, phases)
    preflight(job, phases)
    report: dict[str, Any] = {"data": _data(job, files), "device": describe_device(job.device)}
    if job.space.costs_rise:
        report["profile"] = profile(job.space, job.recipe, job.device)
    report["stem"] = suggested_stem(job.space, final_space(job.space, job.recipe))
    job.data.to(job.device)
    if "search" in phases:
        report["search"] = expected_search(job)
    report["retrain"] = expected_retraining(job)
    report["class_weights"] = job.recipe.class_weights
    report["warnings"] = [] if job.data.reads_text else warnings_of(report)
    report |= {"files": asdict(files) if files else None, "ready": True, "command": command}
    return _write(folder, report)


# -- data, stem, warnings
# -------------------------------------------------------------------------------------------


def _data(job: Job, files: Survey | None) -> dict[str, Any]:
    data = job.data
    labels = torch.bincount(data.images.labels.flatten(), minlength=len(data.classes)).tolist()
    return {
        "name": data.name,
        "input_shape": list(data.input_shape),
        "classes": len(data.classes),
        "train": dict(zip(data.classes, labels, strict=True)),  # includes val if it has a folder
        "test": files.images["test"] if files else None,
        "skipped": data.skipped,
        "text": data.reads_text,
    }


def suggested_stem(space: Space, final: Space) -> dict[str, Any]:
    """The stems of supernet and final network, and the one that suits the image size."""
    _, height, width = space.input_shape
    large = min(height, width) >= STEMS["imagenet"].side
    fitting = fitting_stem(space, large=large)
    if space.trained or all(
        (STEMS[stem].reduction > 1) == large for stem in (space.stem, final.stem)
    ):
        remedy = None
    elif fitting:
        remedy = f"space.stem={fitting} retrain.stem={fitting}"
    else:
        remedy = f"data.image_size=32, as space {space.name} has no stem for large images"
    suggested = fitting or ("imagenet" if large else "small")
    now = [one.stem if "stem" in one.settings else "small" for one in (space, final)]
    return {"search": now[0], "retrain": now[1], "suggested": suggested, "set": remedy}


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """Warnings for the user before the run, from `data`, `stem` and `class_weights` of the
    report."""
    found = []
    counts = report["data"]["train"]
    most, fewest = max(counts, key=counts.get), min(counts, key=counts.get)
    if counts[most] >= IMBALANCE * counts[fewest]:
        weigh = "set retrain.class_weights=balanced, " * (report["class_weights"] is None)
        found.append(
            f"imbalanced: '{most}' has {counts[most]} images, '{fewest}' {counts[fewest]}; {weigh}"
            "read test_balanced_accuracy, or add images"
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


def _write(folder: Path, report: dict[str, Any]) -> str:
    content = json.dumps({"format": FORMAT, **report}, indent=2) + "\n"
    write_atomically(folder / "preflight.json", content.encode())
    text = check_text(report)
    write_atomically(folder / "preflight.txt", text.encode())
    return text
