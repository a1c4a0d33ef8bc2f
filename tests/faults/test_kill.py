"""F1, F2: SIGKILL at random moments of a whole run, over and over; nothing is lost.

Search, checkpoint writes, retraining and export are all hit; a checkpoint is written after every
step, so that many kills fall into a write.
"""

import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import RUN
from hydra.core.global_hydra import GlobalHydra
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from archsmith.cli import main as run

TINY = [
    "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3",
    "space.layers=3", "space.nodes=1", "space.channels=4",
    "space.candidates=[none,skip_connect,sep_conv_3x3]",
    "search.epochs=2", "search.batch_size=12", "runtime.threads=1", "checkpoint.every_seconds=0",
    "retrain.layers=3", "retrain.channels=4", "retrain.epochs=2", "retrain.batch_size=16",
]  # fmt: skip


# A server that has everything imported forks the runs: this process may have autograd's threads.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["run", "archsmith.cli.preflight", "archsmith.phases.pipeline"])


def command(folder: Path, overrides: list[str]) -> None:
    """`python run.py ...` in a process of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    GlobalHydra.instance().clear()
    run.composed.clear()
    sys.argv = [RUN, *TINY, *overrides, f"hydra.run.dir={folder}"]
    try:
        run.main()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    os._exit(0)


def started(folder: Path, overrides: list[str]) -> Any:
    child = SERVER.Process(target=command, args=(folder, overrides))
    child.start()
    return child


def points_of(folder: Path) -> dict[str, list[Any]]:
    """What TensorBoard shows of a run, without times: steps and values, and the steps of pictures
    and histograms."""
    every = dict.fromkeys(("scalars", "images", "histograms"), 0)
    read = EventAccumulator(str(folder), size_guidance=every).Reload()
    tags, other = read.Tags(), ("seconds", "step_ms", "peak_memory_mib")
    scalars = [tag for tag in tags["scalars"] if tag.partition("/")[2] not in other]
    return {
        **{tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in scalars},
        **{tag: [one.step for one in read.Images(tag)] for tag in tags["images"]},
        **{tag: [one.step for one in read.Histograms(tag)] for tag in tags["histograms"]},
    }


def left_in(folder: Path) -> dict[str, Any]:
    """All that a run leaves, without times."""
    results = json.loads((folder / "results.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = [
        *folder.glob("*.safetensors"), *folder.glob("*.svg"), *folder.glob("architecture*.json"),
        *folder.glob("architectures/*"), *folder.glob("pareto/*"), *folder.glob("export/model.*"),
    ]  # fmt: skip
    # a read that was killed is counted, too
    other = ("seconds", "cpu_seconds", "peak_memory_bytes", "test_reads")
    return {
        "results": {k: v for k, v in results.items() if k not in other},
        "points": points_of(folder / "tensorboard"),
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
        "files": {str(path.relative_to(folder)): path.read_bytes() for path in files},
    }


STRATEGIES = ["darts", "darts_second_order", "pcdarts", "goldnas", "annealed", "sddarts"]


@pytest.mark.parametrize(
    ("strategy", "kills"),
    [
        *((name, 1) for name in ("darts", "darts_second_order")),
        *(pytest.param(name, 9, marks=pytest.mark.exhaustive) for name in STRATEGIES),
    ],
)
@pytest.mark.slow
def test_f01_f02_killed_at_random_moments_a_run_ends_the_same(
    strategy: str, kills: int, tmp_path: Path
):
    formats = "genotype" if kills < 9 else "standalone,genotype"
    overrides = [f"strategy={strategy}", f"export.formats=[{formats}]"]
    began = time.monotonic()
    whole = started(tmp_path / "whole", overrides)
    whole.join()
    assert whole.exitcode == 0
    seconds, expected = time.monotonic() - began, left_in(tmp_path / "whole")
    source, killed, rounds = random.Random(strategy), 0, 0
    while killed < kills:
        folder = tmp_path / str(rounds)
        rounds += 1
        for _ in range(source.randint(1, 3)):
            child = started(folder, overrides)
            child.join(source.uniform(0.1, 0.9) * seconds)
            child.kill()
            child.join()
            killed += child.exitcode != 0
        last = started(folder, overrides)
        last.join()
        assert last.exitcode == 0, f"round {rounds}"
        assert left_in(folder) == expected, f"round {rounds}"
    print(f"{strategy}: {killed} runs killed, {rounds} ended, all equal")
