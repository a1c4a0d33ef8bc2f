"""What a run says to type next: made of its own overrides, quoted, and every line of it runs."""

import shlex
import sys
from pathlib import Path

import pytest
from test_command_line import image_tree

from archsmith.cli import command_line
from archsmith.cli.command_line import CommandLine, next_commands, options_first, program
from archsmith.cli.tasks import TASKS

SMALL = [
    "space.layers=3", "space.nodes=1", "space.channels=4",
    "space.candidates=[none,skip_connect,avg_pool_3x3,dil_conv_3x3]", "search.epochs=1",
    "search.batch_size=16", "runtime.threads=1", "retrain.layers=3", "retrain.channels=4",
    "retrain.epochs=1", "retrain.batch_size=16", "export.formats=[]",
]  # fmt: skip
OPERATION = """
from torch import nn

class Mix(nn.Sequential):
    def __init__(self, c_in, c_out, stride, *, affine, search):
        super().__init__(
            nn.AvgPool2d(3, stride, padding=1),
            nn.Conv2d(c_in, c_out, 1),
            nn.BatchNorm2d(c_out, affine=affine),
        )
"""
SYNTHETIC = ["data=synthetic", "data.size=48", "data.image_size=8"]
ONE_SEED = {"seed=0,1,2": "seed=0"}  # of a sweep: three take a minute
RUNS = {
    "demo": ["data.limit=60", *SMALL],
    "own_folder": ["data=folder", "data.root='my photos, 2'", "data.augment.crop=1", *SMALL],
    "own_operation": [
        *SYNTHETIC, "+space.operations.mix={_target_: my_mix.Mix, _partial_: true}",
        *SMALL, "space.candidates=[skip_connect,mix]",
    ],
    "search_only": ["task=search", "strategy=pcdarts", "strategy.warmup=0.0", *SYNTHETIC, *SMALL],
    "export": [
        "task=export", "architecture=found", *SYNTHETIC, *SMALL, "export.formats=[standalone]",
    ],
}  # fmt: skip


def following(out: str) -> list[str]:
    """The commands under `Next:`."""
    lines = out.partition("Next:\n")[2].splitlines()
    return [line.strip() for line in lines if line.startswith("  ")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_c1_every_next_command_runs(archsmith, tmp_path: Path, monkeypatch, name: str):
    (tmp_path / "my_mix.py").write_text(OPERATION)
    image_tree(tmp_path / "my photos, 2", 2)
    monkeypatch.syspath_prepend(str(tmp_path))
    if name == "export":
        found = archsmith(*SYNTHETIC, *SMALL, "hydra.run.dir=found")
        assert found.code == 0, found.err
    said = archsmith(*RUNS[name])
    assert said.code == 0, said.err
    commands = following(said.out)
    assert commands
    start = shlex.split(program())
    for command in commands:
        words = shlex.split(command)
        if words[0] == "tensorboard":
            assert list(Path(words[-1]).rglob("events.*")), command
        elif words[-1].endswith("model.py"):
            assert Path(words[-1]).is_file(), command
        else:
            assert words[: len(start)] == start, command
            again = archsmith(*(ONE_SEED.get(word, word) for word in words[len(start) :]))
            assert again.code == 0, f"{command}\n{again.err}"


LINE = CommandLine(("archsmith",), ("data=folder", "data.root=a b", "seed=4", "strategy.clip=1"))
DARTS = {"strategy": "darts"}
CONFIG = {"retrain": {"epochs": 15}, "architecture": None}


@pytest.fixture
def plain(monkeypatch) -> None:
    """Not within a sweep."""
    monkeypatch.setattr("archsmith.cli.command_line.swept", lambda: False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/archsmith"])


def test_c1_what_follows_keeps_the_runs_own_settings_quoted(plain, tmp_path: Path):
    longer, sweep, compare = next_commands(
        LINE, CONFIG, DARTS, tmp_path / "one, two", TASKS["all"].following
    )
    assert shlex.split(longer) == [
        "archsmith", "data=folder", "data.root=a b", "seed=4", "strategy.clip=1", "task=all",
        f"architecture='{tmp_path}/one, two'", "retrain.epochs=150",
    ]  # fmt: skip
    assert shlex.split(sweep) == [
        "archsmith", "-m", "data=folder", "data.root=a b", "strategy.clip=1", "seed=0,1,2",
    ]  # fmt: skip
    assert compare == "/somewhere/archsmith task=compare"


def test_c1_a_sweep_sets_random_beside_a_strategy_by_its_defaults(plain, tmp_path: Path):
    line = LINE.without("strategy")
    sweep = next_commands(line, CONFIG, DARTS, tmp_path, TASKS["all"].following)[1]
    assert "strategy=darts,random" in sweep


def test_c1_an_export_alone_asks_for_no_other_phase(plain, tmp_path: Path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.py").touch()
    (only,) = next_commands(LINE, CONFIG, DARTS, tmp_path, TASKS["export"].following)
    assert only.endswith("export/model.py")


def test_c1_a_search_goes_on_in_its_folder(plain, tmp_path: Path):
    line = LINE.having(task="search", **{"hydra.run.dir": "here"})
    (only,) = next_commands(line, CONFIG, DARTS, tmp_path, TASKS["search"].following)
    assert only.endswith("hydra.run.dir=here task=all")


def test_c6_options_may_stand_between_overrides():
    typed = ["a=1", "-m", "b=1,2", "--config-dir", "mine", "c=3"]
    assert options_first(typed) == ["-m", "--config-dir", "mine", "a=1", "b=1,2", "c=3"]


def test_c6_a_runs_own_configuration_is_no_start_but_its_command_is(archsmith, tmp_path: Path):
    (tmp_path / "overrides.yaml").write_text("- seed=3\n- data.root='a b'\n")
    said = archsmith(f"--config-path={tmp_path}", "--config-name=config")
    assert said.code == 2
    (line,) = said.err.splitlines()
    assert line.endswith(shlex.join(["seed=3", "data.root='a b'"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+search.epoch=3"], "unknown setting 'search.epoch', did you mean 'search.epochs'?"),
        (["+budget.mac=3"], "unknown setting 'budget.mac', did you mean 'budget.macs'?"),
        (
            ["-m", "strategy=evolution,mcts", "strategy.asks=8"],
            "strategy.asks: not a setting of the default strategy, with which a sweep over "
            "strategy is composed first; write ++strategy.asks=..., for all of them",
        ),
        (["-m", "strategy=" + "darts," * 60], "command line: 'strategy=darts,"),
        ([f"data.root={'x' * 300}", "data=folder"], "data: [Errno 36] File name too long"),
        ([f"benchmark.table={'x' * 300}", "space=nasbench201"], "a path is too long for this disk"),
        (["task=compare", f"runs={'x' * 300}"], "a path is too long for this disk, found 'xxx"),
        (["a b="], "command line: 'a b=' cannot be read, expected name=value"),
    ],
)
def test_c10_a_word_that_is_no_setting_is_said_in_our_own_words(archsmith, arguments, message):
    said = archsmith(*arguments)
    assert said.code == 2
    assert message in said.err
    assert "hydra.cc" not in said.err


@pytest.mark.slow
def test_c10_what_is_refused_leaves_no_folder(archsmith, tmp_path: Path):
    for refused in (["data=folder", "data.root=nowhere"], ["retrain.cutout=16"]):
        assert archsmith(*refused).code in (2, 3)
    assert not list(tmp_path.glob("outputs/*"))


def test_c10_launchers_are_listed(archsmith):
    assert {"basic", "processes", "slurm"} <= set(archsmith("task=list").out.split())


def test_an_installed_package_without_run_py_is_started_as_a_module(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(command_line, "OWN", tmp_path)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "archsmith" / "__main__.py")])
    assert program().endswith(" -m archsmith")
    (tmp_path / "run.py").touch()
    assert program().endswith("run.py")
