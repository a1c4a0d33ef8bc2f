"""The phases of the found network: retraining, and the final evaluation."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from archsmith.data.preprocessing import Preprocessing
from archsmith.data.roles import Data
from archsmith.errors import ConfigError, configuring
from archsmith.files import write_atomically
from archsmith.phases.run import Run
from archsmith.phases.within_budget import fit_of, spent
from archsmith.result.network import (
    digest_of,
    final_space,
    load_final,
    save_final,
    unpruned,
)
from archsmith.result.outcome import UNTESTED
from archsmith.result.retrain import retrain, training_loader
from archsmith.train.record import Record
from archsmith.train.runtime import seed_everything
from search_spaces.architecture import Architecture
from supernets.costs import macs, parameters
from supernets.forms import use_form
from supernets.network import Network, started
from supernets.outline import outline, repeats

log = logging.getLogger(__name__)
TEACHING = ("teacher", "distillation", "temperature")  # settings that a teacher does not read


def retrain_phase(run: Run) -> None:
    """Trains the final network on all training images and writes `weights.safetensors`."""
    job, architecture = run.job, run.architecture()
    identity = run.identity("retrain") | {"architecture": architecture.identity}
    if run.finished("retrain", identity):
        return
    if job.budget.limits and job.architecture is not None:
        run.budgeted(spent(fit_of(job), architecture))
    run.keep(architecture)
    seed_everything(job.seed)
    job.data.to(job.device)
    teacher = teacher_of(run)
    with run.measuring("retrain"):
        net = retrain(
            final_space(job.space, job.recipe),
            architecture,
            training_loader(job.data, job.recipe, job.seed),
            job.recipe,
            seed=job.seed,
            computing=job.computing,
            teacher=teacher,
            record=run.record,
            checkpoints=run.checkpoints("retrain", identity),
        )
        save_final(net, job.folder / "weights.safetensors", architecture, job.data, job.recipe)
    run.results.update(**size_of(run, net, architecture), **UNTESTED)
    run.finish("retrain", identity)


def teacher_of(run: Run) -> Network | None:
    """The unpruned network, trained by the same recipe, if the recipe has a teacher; that of a
    space with trained weights is trained already.

    Its weights are kept in `teacher.safetensors` and its metrics in `teacher/`.
    """
    job, recipe = run.job, replace(run.job.recipe, teacher=None)
    if job.recipe.teacher is None:
        return None
    full, path = unpruned(job.space), job.folder / "teacher.safetensors"
    if job.space.trained:
        with configuring():
            return started(job.space, full).to(job.device)
    identity = teacher_identity(run.identity("retrain"), full)
    if path.is_file() and run.finished("teacher", identity):
        return load_final(path, job.space, full).net.to(job.device)
    log.info("retrain: the teacher first, the unpruned network of space %s", job.space.name)
    record = Record(job.folder / "teacher", run.loggers)
    try:
        with run.measuring("teacher"):
            net = retrain(
                final_space(job.space, recipe),
                full,
                training_loader(job.data, recipe, job.seed),
                recipe,
                seed=job.seed,
                computing=job.computing,
                record=record,
                checkpoints=run.checkpoints("teacher", identity),
            )
    finally:
        record.close()
    save_final(net, path, full, job.data, recipe)
    run.finish("teacher", identity)
    return net


def teacher_identity(settings: Mapping[str, Any], full: Architecture) -> dict[str, Any]:
    """What identifies the training of a teacher: its architecture, and the settings of a
    retraining but for those that say how it teaches."""
    recipe = {name: v for name, v in settings["retrain"].items() if name not in TEACHING}
    return {**settings, "retrain": recipe, "architecture": full.identity}


def evaluate_phase(run: Run) -> None:
    """Evaluates on the test split: once in a full run; every read is counted."""
    job = run.job
    net, architecture, preprocessing, data, path = run.final()
    identity = run.identity() | {
        "architecture": architecture.identity,
        "weights": digest_of(path),
    }
    if run.finished("evaluate", identity):
        return
    check_same_data(job.data, data, preprocessing)
    with configuring():
        use_form(net, job.form, job.device)
    log.info("evaluate: the test images are read")
    seed_everything(job.seed)  # for operations that draw: a resumed run draws the same
    with run.measuring("evaluate"):
        tested, mistakes = run.tested(net, preprocessing)
        if mistakes is not None:
            mistakes.save(job.folder)
            tested["test_mistakes"] = mistakes.told()
    reads = run.results.fields["test_reads"] + 1
    run.results.update(**tested, test_reads=reads, **size_of(run, net, architecture))
    run.finish("evaluate", identity)


def check_same_data(found: Data, name: str, trained: Preprocessing) -> None:
    """Raises ConfigError for images whose classes differ from those of the training data."""
    if found.name != name:
        raise ConfigError(
            f"data: the weights were trained on {name}, found data={found.name}; set data={name}"
        )
    if found.classes != trained.classes:
        absent, new = (
            ", ".join([repr(c) for c in a if c not in b][:5]) or "none"
            for a, b in ((trained.classes, found.classes), (found.classes, trained.classes))
        )
        raise ConfigError(
            f"data: the weights were trained on {len(trained.classes)} classes, found "
            f"{len(found.classes)} (absent: {absent}; unknown: {new}); give images of the same "
            "classes under the same names, or retrain"
        )


def size_of(run: Run, net: Network, architecture: Architecture) -> dict[str, Any]:
    """The fields of `results.json` on the network; writes `layers.json`, which says more."""
    told = {
        "input": list(net.space.input_shape), "layers": outline(net), "repeats": repeats(net),
    }  # fmt: skip
    write_atomically(run.job.folder / "layers.json", (json.dumps(told) + "\n").encode())
    return {
        "parameters": parameters(net),
        "macs": macs(net),
        "architecture": architecture.identity,
    }
