"""A run as a session in TensorBoard's hparams view: its settings and results."""

from collections.abc import Mapping, Sequence
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


def session(settings: Mapping[str, str | float]) -> list[Any]:
    """The summaries of a session: columns and measures in their order, its start and its end.

    TensorBoard takes the columns from the first run that it finds, and shows of its other runs
    those columns only; without them it would make a column of every curve. It puts settings that
    differ first: the strategy is said to.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    names = (*MEASURES, "discretisation_gap")
    parts = hparams(dict(settings), {f"result/{name}": 0.0 for name in names})
    plugin = parts[0].value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for setting in content.experiment.hparam_infos:
        setting.differs = setting.name == FIRST[0]
    for metric, name in zip(content.experiment.metric_infos, names, strict=True):
        metric.display_name = name.replace("_", " ")
    plugin.content = content.SerializeToString()
    return list(parts)
