"""Checks before the first phase what could fail in a later one."""

import logging
from collections.abc import Set

import torch

from archsmith.cli.messages import one_line
from archsmith.cli.stem import fitting_stem
from archsmith.data.augment import Augment
from archsmith.data.roles import IMBALANCE
from archsmith.errors import ConfigError, configuring, is_out_of_memory
from archsmith.job import Job
from archsmith.parallel.distributed import size
from archsmith.phases.methods import BlackBox, Gradient, method_of
from archsmith.phases.pipeline import PHASES
from archsmith.result.fit_rising import fit_for
from archsmith.result.network import final_space
from archsmith.result.profile import profile, profile_lines
from archsmith.result.recipe import Recipe
from archsmith.result.retrain import Retraining
from archsmith.train.random_state import random_state, set_random_state
from search_spaces.architecture import Architecture
from search_spaces.layers import laid_out
from search_spaces.settings import setting
from search_spaces.space import Space
from search_spaces.stems import STEMS
from supernets.network import final_network

log = logging.getLogger(__name__)


def preflight(job: Job, phases: tuple[str, ...]) -> None:
    """Builds the supernet on the meta device, loaders, and the final network, which is trained for
    one step; looks for what a baseline needs.

    Raises:
        ConfigError: the settings are incompatible.
        DataError: too few images for a role, or a baseline's weights are missing.
    """
    trained = {PHASES[name].trains for name in phases}
    with configuring():
        method = method_of(job)
        if "supernet" in trained:
            method.check()
        if "final" in trained:
            space = final_space(job.space, job.recipe)
            architecture = laid_out(job.architecture or some_architecture(space), space)
            if job.data.reads_text and job.recipe.class_weights is not None:
                raise ConfigError(
                    "retrain.class_weights: characters are not weighted, found "
                    f"{job.recipe.class_weights}; set it to null"
                )
            augment = {**job.data.settings.augment, **job.recipe.augment}
            try:
                Augment.of(augment)
                job.data.check_augment(augment)
            except ValueError as error:
                said = str(error)
                for name in job.recipe.augment:  # these override the data's
                    said = said.replace(f"data.augment.{name}:", f"retrain.{name}:")
                raise ConfigError(said) from error
            _check_step(space, architecture, job.recipe, job.device)
            if not job.data.reads_text:
                _say_of_classes(job)
        if job.space.costs_rise and "supernet" in trained:
            for line in profile_lines(profile(job.space, job.recipe, job.device)):
                log.info("space: %s", line)
        check_budget(job, method, trained)
        if "baseline" in phases and job.baseline is not None:
            with setting("baseline"):
                job.baseline.check(final_space(job.space, job.recipe))


def check_budget(job: Job, method: Gradient | BlackBox, trained: Set[str | None]) -> None:
    """Raises ConfigError if the given architecture, or all that can be found, exceed the budget.

    `trained`: the networks that the phases train, named as in `Phase.trains`.
    """
    if not job.budget.limits or not {"supernet", "final"} & trained:
        return
    measures = job.budget.latency_ms is not None and job.budget.latency_table is None
    if measures and size() > 1:
        raise ConfigError(
            "budget.latency_ms: each process would measure its own; search in one process, or set "
            "budget.macs"
        )
    strategy = method.strategy if "supernet" in trained else None
    has_losses = strategy is not None and strategy.update.two_level
    fit = fit_for(job.budget, job.space, job.recipe, job.device, has_losses=has_losses)
    if "supernet" in trained:
        fit.check_possible(method.finder)
    elif job.architecture is not None:
        fit.check(job.architecture, "the given architecture's network")


def some_architecture(space: Space) -> Architecture:
    """An arbitrary architecture of a space: every row keeps its last option that is not a zero."""
    return Architecture.of(
        space,
        {
            name: {
                row.name: [o.name for o in row.options if o.kind != "zero"][-1:]
                for row in choice.rows
            }
            for name, choice in space.choices.items()
        },
    )


def _say_of_classes(job: Job) -> None:
    """Logs that classes of very different sizes are not weighted, if so."""
    counts = torch.bincount(job.data.images.labels)
    if job.recipe.class_weights is None and int(counts.max()) >= IMBALANCE * int(counts.min()):
        log.warning(
            "retrain: the largest class counts %.0f times as much as the smallest; with "
            "retrain.class_weights=balanced all count alike",
            int(counts.max()) / int(counts.min()),
        )


def _check_step(
    space: Space, architecture: Architecture, recipe: Recipe, device: torch.device
) -> None:
    """Trains the network for one step on two images; the random generators are left unchanged.

    Raises ConfigError if the images are too small.
    """
    before = random_state()
    try:
        net = final_network(space, architecture, auxiliary=recipe.auxiliary_weight > 0)
        Retraining(net.to(device), [], recipe).prepared(2)()  # type: ignore[arg-type]
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        if _passes(space, architecture):
            raise ConfigError(
                f"retrain: a training step of the final network fails ({one_line(error)[:200]})"
            ) from error
        _, H, W = space.input_shape
        reduces = STEMS[space.stem].reduction > 1
        stem = fitting_stem(space, large=False)
        remedy = f"set retrain.stem={stem}" if reduces and stem else "give larger images"
        raise ConfigError(
            f"retrain: {H}x{W} images are too small for this network with "
            f"stem {space.stem} ({' '.join(str(error).split())[:120]}); {remedy}"
        ) from error
    finally:
        set_random_state(before)


def _passes(space: Space, architecture: Architecture) -> bool:
    """Whether the shapes of the final network's maps fit."""
    try:
        with torch.device("meta"):
            final_network(space, architecture).train()(torch.zeros(2, *space.input_shape))
    except RuntimeError:
        return False
    return True
