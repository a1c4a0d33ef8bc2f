"""A run as a session in TensorBoard's hparams view: its settings and results."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

FIRST = ("strategy", "space", "data", "seed")
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
MEASURES = ("test_accuracy", "discretised_accuracy", "supernet_accuracy", "parameters", "macs")
PREFIX = "_hparams_"  # of the tags of a session
RESULT = "summary"  # of the tags of the measures; TensorBoard shows it after the curves


def columns(settings: Mapping[str, Any], changed: Sequence[str]) -> dict[str, str | float]:
    """Strategy, space, data, seed, the main settings, and the `changed` ones (dotted names)."""
    found = {name: settings.get(name) for name in dict.fromkeys((*FIRST, *MAIN, *changed))}
    return {name: v for name, v in found.items() if isinstance(v, bool | int | float | str)}


def measures(results: Mapping[str, Any]) -> dict[str, float]:
    """The results to compare, the test accuracy first; those that were not measured are absent."""
    found = {name: results[name] for name in MEASURES if results[name] is not None}
    supernet, discretised = results["supernet_accuracy"], results["discretised_accuracy"]
    if supernet is not None and discretised is not None:
        found["discretisation_gap"] = supernet - discretised
    return found


def session(settings: Mapping[str, str | float], changed: Collection[str]) -> list[Any]:
    """The summaries of a session: columns and measures, its start and its end.

    TensorBoard takes the columns from the first run that it finds, and shows of its other runs
    those columns only; without them it would make a column of every curve. It sorts settings: those
    that are said to differ (`changed`) first, then by name; so the first four have a digit in
    front, which it does not show.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    measured = (*MEASURES, "discretisation_gap")
    keys = {_key(name): name for name in settings}
    parts = hparams(
        {key: settings[name] for key, name in keys.items()},
        {f"{RESULT}/{name}": 0.0 for name in measured},
    )
    plugin = parts[0].value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for setting in content.experiment.hparam_infos:
        setting.display_name = keys[setting.name]
        setting.differs = setting.display_name in (*FIRST, *changed)
    for metric, name in zip(content.experiment.metric_infos, measured, strict=True):
        metric.display_name = name.replace("_", " ")
    plugin.content = content.SerializeToString()
    return list(parts)


def _key(name: str) -> str:
    return f"{FIRST.index(name) + 1} {name}" if name in FIRST else name
