"""A run as a session in TensorBoard's hparams view: its settings and results."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archsmith.differences import value_at

log = logging.getLogger(__name__)

MAIN = (
    "search.epochs",
    "search.batch_size",
    "space.layers",
    "space.channels",
    "strategy.warmup",
    "strategy.alpha_optimizer.lr",
    "strategy.weight_optimizer.lr",
    "retrain.epochs",
    "retrain.layers",
    "retrain.channels",
)
MEASURES = ("supernet_accuracy", "discretised_accuracy", "test_accuracy", "parameters", "macs")


def write_session(
    folder: Path, results: Mapping[str, Any], settings: Mapping[str, Any], changed: Sequence[str]
) -> None:
    """Writes `tensorboard/hparams/`, replacing what an earlier call wrote: one session per run.

    Columns are strategy, space, data, seed, the main settings, and those `changed` on the command
    line (dotted names). The measures are scalars in that folder, where TensorBoard finds them.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    place = folder / "tensorboard" / "hparams"
    try:
        shutil.rmtree(place, ignore_errors=True)
        with SummaryWriter(str(place)) as writer:
            # the start and the end of a session; the experiment's description is shared
            for part in hparams(_columns(results, settings, changed), {})[1:]:
                writer.file_writer.add_summary(part)
            for name, value in _measures(results).items():
                writer.add_scalar(f"result/{name}", value, 0)
    except OSError as error:
        log.warning("%s: the hparams of this run cannot be written (%s)", folder, error)


def _columns(
    results: Mapping[str, Any], settings: Mapping[str, Any], changed: Sequence[str]
) -> dict[str, str | float]:
    found = {name: results[name] for name in ("strategy", "space", "data", "seed")}
    for key in (*MAIN, *changed):
        value = value_at(settings, key)
        if isinstance(value, bool | int | float | str) and key not in found:
            found[key] = value
    return found


def _measures(results: Mapping[str, Any]) -> dict[str, float]:
    found = {name: results[name] for name in MEASURES if results[name] is not None}
    supernet, discretised = results["supernet_accuracy"], results["discretised_accuracy"]
    if supernet is not None and discretised is not None:
        found["discretisation_gap"] = supernet - discretised
    return found
