"""A job's architecture within its budget, and its record in `results.json`."""

import json
import logging
from dataclasses import replace
from typing import Any

from archsmith.data.roles import Roles
from archsmith.job import Job
from archsmith.result.fit import Fit, given_up
from archsmith.result.fit_rising import fit_for
from archsmith.result.limits import budget_line
from archsmith.search.measure import Found, discretised_accuracy
from archsmith.search.pareto import best_first
from search_spaces.architecture import Architecture
from supernets.network import Network

log = logging.getLogger(__name__)


def fit_of(job: Job) -> Fit:
    """The job's budget for its final networks."""
    return fit_for(job.budget, job.space, job.recipe, job.device)


def fitted(
    job: Job, found: Found, net: Network, strategy: Any, roles: Roles
) -> tuple[Found, dict[str, Any]]:
    """The search's result, or the best architecture within the budget instead; and the record for
    `results.json`.

    Raises:
        ConfigError: nothing fits.
    """
    fit = fit_of(job)
    chosen = fit.choose(strategy, found.architecture, best_first(job.folder))
    if chosen == found.architecture:
        return found, spent(fit, chosen)
    accuracy = discretised_accuracy(net, chosen, roles)
    without = {
        **fit.cost(found.architecture),
        "discretised_accuracy": found.discretised_accuracy,
        "architecture": json.loads(found.architecture.to_json())["choices"],
    }
    changed = given_up(job.space, found.architecture, chosen, strategy.gates())
    log.info(
        "search: %d rows changed for the budget; discretised accuracy %.3f, without %.3f",
        len(changed), accuracy, found.discretised_accuracy,
    )  # fmt: skip
    found = replace(found, architecture=chosen, discretised_accuracy=accuracy)
    return found, spent(fit, chosen, without=without, given_up=changed)


def spent(fit: Fit, chosen: Architecture, **more: Any) -> dict[str, Any]:
    """Limits and costs of a chosen architecture's network."""
    told: dict[str, Any] = {"limits": fit.budget.limits, "cost": fit.cost(chosen), **more}
    if fit.given is not None:
        told["device"] = fit.given.device
    elif fit.budget.latency_ms is not None:
        told["latency"] = fit.latency(chosen).to_json()
    log.info("%s", budget_line(told))
    return told
