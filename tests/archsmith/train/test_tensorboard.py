"""What TensorBoard shows of runs, read back from the event files as TensorBoard reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from archsmith import interrupt
from archsmith.search import loop as search
from archsmith.train.record import Record

TINY = [
    "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3",
    "space.layers=3", "space.nodes=1", "space.channels=4",
    "search.epochs=2", "search.batch_size=12", "runtime.threads=1",
    "retrain.layers=3", "retrain.channels=4", "retrain.epochs=1", "retrain.batch_size=16",
    "export.formats=[]",
]  # fmt: skip


def events(folder: Path) -> EventAccumulator:
    read = EventAccumulator(
        str(folder), size_guidance=dict.fromkeys(("images", "scalars", "histograms"), 0)
    )
    return read.Reload()


def sessions(outputs: Path) -> dict[str, dict[str, Any]]:
    """Settings of each session below a folder, by its place."""
    read = EventMultiplexer().AddRunsFromDirectory(str(outputs)).Reload()
    found = {}
    for run, tags in read.PluginRunToTagToContent(metadata.PLUGIN_NAME).items():
        content = tags[metadata.SESSION_START_INFO_TAG]
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        assert metadata.SESSION_END_INFO_TAG in tags
        found[run] = {
            name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
        }
    return found


@pytest.mark.slow
def test_a_sweep_has_a_session_for_each_run_also_when_it_is_run_again(archsmith, tmp_path: Path):
    sweep = ["-m", *TINY, "strategy=darts,random", "seed=0"]
    for _ in range(2):
        assert archsmith(*sweep).code == 0
    found = sessions(tmp_path / "outputs")
    assert len(found) == 2
    assert {one["strategy"] for one in found.values()} == {"darts", "random"}
    for run, one in found.items():
        assert one["seed"] == 0
        assert one["search.epochs"] == 2
        assert run.endswith("tensorboard/hparams")
        assert len(list((tmp_path / "outputs" / run).iterdir())) == 1
        scalars = set(events(tmp_path / "outputs" / run).Tags()["scalars"])
        assert {"result/test_accuracy", "result/parameters", "result/macs"} <= scalars
        gap = {"result/supernet_accuracy", "result/discretisation_gap"} & scalars
        assert len(gap) == (2 if one["strategy"] == "darts" else 0)
    darts = next(one for one in found.values() if one["strategy"] == "darts")
    assert darts["data.classes"] == 3
    assert darts["strategy.alpha_optimizer.lr"] > 0


@pytest.mark.slow
def test_a_run_that_was_stopped_has_every_step_once(archsmith, monkeypatch, tmp_path: Path):
    real, steps = search.pictures, []

    def stopping(*arguments: Any) -> None:
        real(*arguments)
        steps.append(arguments[-1])
        if len(steps) == 1:
            interrupt._asked.set()

    monkeypatch.setattr(search, "pictures", stopping)
    run = [*TINY, "task=search", "hydra.run.dir=d"]
    assert archsmith(*run).code == 75
    assert archsmith(*run).code == 0
    assert steps == [0, 1]
    read = events(tmp_path / "d" / "tensorboard" / "search")
    tags = read.Tags()
    for name in ("search/discretisation_gap", "cost/search_step_ms", "cost/search_peak_memory_mib",
                 "gates_normal/0-2/sep_conv_3x3"):  # fmt: skip
        assert [point.step for point in read.Scalars(name)] == [1, 2], name
    for name in ("gates/normal", "cell/normal", "cell/reduce"):
        assert [image.step for image in read.Images(name)] == [1, 2], name
    assert "alphas/alpha.normal" in tags["histograms"]


def test_points_written_after_the_checkpoint_are_replaced_not_doubled(tmp_path: Path):
    record = Record(tmp_path)
    for step in range(3):
        record.cost("search", step, 0.5, torch.device("cpu"))
        record.histogram("search", "alphas/normal", torch.zeros(3), step)
    record.close()
    again = Record(tmp_path)
    again.resume("search", 1)
    for step in (1, 2):
        again.cost("search", step, 0.25, torch.device("cpu"))
        again.histogram("search", "alphas/normal", torch.ones(3), step)
    again.close()
    read = events(tmp_path / "tensorboard" / "search")
    points = [(point.step, point.value) for point in read.Scalars("cost/search_step_ms")]
    assert points == [(1, 500.0), (2, 250.0), (3, 250.0)]
    assert [point.step for point in read.Histograms("alphas/normal")] == [1, 2, 3]
