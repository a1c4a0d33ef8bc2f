"""What TensorBoard shows of runs, read back from the event files as TensorBoard reads them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import backend_context, metadata, plugin_data_pb2
from test_command_line import TINY

from archsmith import interrupt
from archsmith.loggers.logger import Loggers, Outcome
from archsmith.loggers.tensorboard import TensorBoard
from archsmith.search import loop as search
from archsmith.train.record import RESULTS, Record

TWO = [*TINY, "search.epochs=2", "export.formats=[]"]  # epochs


def events(folder: Path) -> EventAccumulator:
    read = EventAccumulator(
        str(folder), size_guidance=dict.fromkeys(("images", "scalars", "histograms"), 0)
    )
    return read.Reload()


def entries(outputs: Path) -> list[str]:
    """TensorBoard's list of runs below a folder."""
    return sorted(EventMultiplexer().AddRunsFromDirectory(str(outputs)).Reload().Runs())


def sessions(outputs: Path) -> dict[str, dict[str, Any]]:
    """Settings of each session below a folder, by its place."""
    read = EventMultiplexer().AddRunsFromDirectory(str(outputs)).Reload()
    found = {}
    for run, tags in read.PluginRunToTagToContent(metadata.PLUGIN_NAME).items():
        assert metadata.EXPERIMENT_TAG in tags
        content = tags[metadata.SESSION_START_INFO_TAG]
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        assert metadata.SESSION_END_INFO_TAG in tags
        found[run] = {
            name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
        }
    return found


def columns(outputs: Path) -> tuple[list[str], list[str]]:
    """Settings and measures of the hparams view, in the order in which it shows them."""
    read = EventMultiplexer().AddRunsFromDirectory(str(outputs)).Reload()
    context = backend_context.Context(SimpleNamespace(data_provider=None))
    experiment = context.experiment_from_metadata(
        None, "", True, read.PluginRunToTagToContent(metadata.PLUGIN_NAME), None
    )
    return (
        [one.display_name for one in experiment.hparam_infos],
        [one.name.tag for one in experiment.metric_infos],
    )


def board(folder: Path) -> Record:
    return Record(folder, Loggers([TensorBoard(folder, {})]))


@pytest.mark.slow
def test_a_sweep_has_an_entry_and_a_session_for_each_run_also_when_it_is_run_again(
    archsmith, tmp_path: Path
):
    sweep = ["-m", *TWO, "strategy=darts,random", "seed=0"]
    for _ in range(2):
        assert archsmith(*sweep).code == 0
    found = sessions(tmp_path / "outputs")
    assert len(found) == 2
    assert entries(tmp_path / "outputs") == sorted(found)
    assert {one["1 strategy"] for one in found.values()} == {"darts", "random"}
    for run, one in found.items():
        assert (one["4 seed"], one["search.epochs"]) == (0, 2)
        assert run.endswith("/tensorboard")
        read = events(tmp_path / "outputs" / run)
        scalars = set(read.Tags()["scalars"])
        assert {"summary/test_accuracy", "summary/parameters", "summary/macs"} <= scalars
        assert len(read.Scalars("summary/test_accuracy")) == 1
        gap = {"summary/supernet_accuracy", "summary/discretisation_gap"} & scalars
        assert len(gap) == (2 if one["1 strategy"] == "darts" else 0)
    darts = next(one for one in found.values() if one["1 strategy"] == "darts")
    assert darts["data.classes"] == 3
    assert darts["strategy.alpha_optimizer.lr"] > 0
    settings, measured = columns(tmp_path / "outputs")
    assert settings[:4] == ["strategy", "space", "data", "seed"]
    assert set(settings[4:12]) <= {one.partition("=")[0] for one in TWO}  # as they were changed
    assert measured[0] == "summary/test_accuracy"


@pytest.mark.slow
def test_a_run_that_was_stopped_is_one_entry_and_has_every_step_once(
    archsmith, monkeypatch, tmp_path: Path
):
    real, steps = search.pictures, []

    def stopping(*arguments: Any) -> None:
        real(*arguments)
        steps.append(arguments[-1])
        if len(steps) == 1:
            interrupt._asked.set()

    monkeypatch.setattr(search, "pictures", stopping)
    run = [*TWO, "hydra.run.dir=d"]
    assert archsmith(*run).code == 75
    assert archsmith(*run).code == 0
    assert steps == [0, 1]
    assert entries(tmp_path) == ["d/tensorboard"]
    read = events(tmp_path / "d" / "tensorboard")
    tags = read.Tags()
    assert len(tags["scalars"]) < 40  # no curve for each gate
    for name in tags["scalars"]:
        steps = {"search": [1, 2], "retrain": [1], "summary": [1]}[name.partition("/")[0]]
        assert [point.step for point in read.Scalars(name)] == steps, name
    assert {"search/discretisation_gap", "search/step_ms", "retrain/peak_memory_mib"} <= {
        *tags["scalars"]
    }
    assert sorted(tags["images"]) == [
        "search cells/normal", "search cells/reduce", "search gates/normal", "search gates/reduce",
    ]  # fmt: skip
    for name in tags["images"]:
        assert [image.step for image in read.Images(name)] == [1, 2], name
    assert sorted(tags["histograms"]) == ["search alphas/normal", "search alphas/reduce"]


def test_points_written_after_the_checkpoint_are_replaced_not_doubled(tmp_path: Path):
    record = board(tmp_path)
    for step in range(3):
        record.histogram("search", "alphas/normal", torch.zeros(3), step)
        record.cost(0.5, torch.device("cpu"))
        record.log("search", step, {"loss": 1.0})
    record.close()
    again = board(tmp_path)
    again.resume("search", 1)
    for step in (1, 2):
        again.histogram("search", "alphas/normal", torch.ones(3), step)
        again.cost(0.25, torch.device("cpu"))
        again.log("search", step, {"loss": 2.0})
    again.close()
    read = events(tmp_path / "tensorboard")
    points = [(point.step, point.value) for point in read.Scalars("search/step_ms")]
    assert points == [(1, 500.0), (2, 250.0), (3, 250.0)]
    assert [point.value for point in read.Scalars("search/loss")] == [1.0, 2.0, 2.0]
    histograms = read.Histograms("search alphas/normal")
    assert [(one.step, one.histogram_value.max) for one in histograms] == [(1, 0), (2, 1), (3, 1)]


def test_a_search_that_goes_back_to_an_earlier_epoch_leaves_out_what_came_after_it(tmp_path: Path):
    record = board(tmp_path)
    for step, loss in ((0, 1.0), (1, 2.0), (2, 3.0)):
        record.log("search", step, {"loss": loss})
    record.resume("search", 1)
    record.log("search", 1, {"loss": 4.0})
    record.close()
    points = events(tmp_path / "tensorboard").Scalars("search/loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 4.0)]


def test_a_killed_run_keeps_the_epochs_that_it_logged(tmp_path: Path):
    record = board(tmp_path)
    record.log("search", 0, {"loss": 1.0})  # and is never closed
    assert len(events(tmp_path / "tensorboard").Scalars("search/loss")) == 1


def test_a_session_replaces_the_one_before_and_says_what_a_curve_is(tmp_path: Path):
    logger = TensorBoard(tmp_path, {"strategy": "darts", "seed": 3, "space.nodes": 2, "x": [1]})
    logger.scalars("search", 1, {"train_loss": 1.0})
    results = dict.fromkeys(RESULTS)
    for accuracy in (0.5, 0.75):
        logger.finish(Outcome(results | {"test_accuracy": accuracy}, ["space.nodes"], []))
    read = events(tmp_path / "tensorboard")
    (point,) = read.Scalars("summary/test_accuracy")
    assert point.value == 0.75
    assert read.Scalars("search/train_loss")[0].value == 1.0
    about = read.SummaryMetadata("search/train_loss").summary_description
    assert about == "loss on the training images, mean over the epoch"
    settings, _ = columns(tmp_path)
    assert settings == ["strategy", "seed", "space.nodes"]
