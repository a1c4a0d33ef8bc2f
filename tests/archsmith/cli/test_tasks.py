"""The table of tasks: what reads it, and that a task from outside is an entry and a function."""

import re
from pathlib import Path

import pytest
from test_command_line import TINY, line_of

from archsmith.cli.tasks import IMAGES, TASKS, Task, run_phases
from archsmith.phases.needs import NEEDS
from archsmith.phases.pipeline import PHASES, Phase


def greet(task: Task, config) -> None:
    print(f"{task.name}: seed {config.seed}")


def leave_note(run) -> None:
    (run.job.folder / "note.txt").write_text(run.architecture().space["name"])


@pytest.mark.slow
def test_a_new_task_is_an_entry_and_a_function(archsmith, monkeypatch):
    monkeypatch.setitem(TASKS, "greet", Task("greet", "print the seed", greet))
    said = archsmith("task=greet", "seed=3")
    assert (said.code, said.out) == (0, "greet: seed 3\n")
    assert "\n  task=greet           print the seed\n" in archsmith("--help").out
    assert archsmith("task=list").out.endswith("\n  task=greet           print the seed\n")
    assert line_of(archsmith("task=great")).endswith(", list, greet")


@pytest.mark.slow
def test_a_new_task_of_phases_is_an_entry_each_and_its_needs_are_asked_for(
    archsmith, monkeypatch, tmp_path: Path
):
    monkeypatch.setitem(PHASES, "note", Phase(leave_note))
    note = Task("note", "leave a note", run_phases, phases=("note",), needs=("architecture",))
    monkeypatch.setitem(TASKS, "note", note)
    refused = archsmith(*TINY, "task=note", "hydra.run.dir=noted")
    assert refused.code == 2
    assert "architecture: this task needs one" in line_of(refused)
    assert not (tmp_path / "noted").exists()
    said = archsmith(*TINY, "task=note", "architecture=DARTS_V2", "hydra.run.dir=noted")
    assert said.code == 0, said.err
    assert (tmp_path / "noted" / "note.txt").read_text() == "darts"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=retrain"], "architecture: this task needs one; set architecture="),
        (["task=export", "architecture=DARTS_V2"], "weights: this task needs a trained network"),
        (["task=baseline", "architecture=DARTS_V2"], "baseline: null, expected one; set baseline="),
        (
            ["task=rank"],
            "benchmark.table: task=rank and search.score=table need one; set",
        ),
    ],
)
def test_what_a_task_needs_is_asked_for_before_a_folder_is_left(
    archsmith, tmp_path: Path, overrides: list[str], message: str
):
    said = archsmith(*TINY, *overrides)
    assert said.code == 2
    assert message in line_of(said)
    assert not list(tmp_path.glob("outputs/*"))


def test_entries_name_phases_and_needs_that_exist():
    for name, task in TASKS.items():
        assert name == task.name
        assert set(task.phases) <= set(PHASES)
        assert set(task.needs) <= {IMAGES, *NEEDS}


@pytest.mark.slow
def test_the_help_and_the_list_have_a_line_for_each_task_within_100_columns(archsmith):
    for said in (archsmith("--help"), archsmith("task=list")):
        found = re.findall(r"^  task=(\w+) +(.+)$", said.out, re.M)
        assert found == [(task.name, task.line) for task in TASKS.values()]
        assert all(len(line) <= 100 for line in said.out.splitlines() if line.startswith("  task="))
