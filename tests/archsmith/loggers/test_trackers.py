"""MLflow and Weights & Biases: with small stand-ins for both libraries, and with the real ones,
offline, where they are installed."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from test_command_line import TINY

from archsmith.loggers.logger import Logger, Loggers, Outcome
from archsmith.loggers.start import LOGGERS, check_loggers, started
from archsmith.train.record import Record

TWO = [*TINY, "search.epochs=2", "export.formats=[]"]  # epochs
SETTINGS = {"strategy": "darts", "seed": 0, "search.epochs": 2, "space.candidates": ["a", "b"]}


class Client:
    """What we use of `MlflowClient`, into the dictionary `runs`."""

    def __init__(self, runs: dict[str, dict[str, Any]]):
        self.runs = runs

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return f"experiment {name}"

    def create_run(self, experiment: str, run_name: str) -> Any:
        run_id = f"run{len(self.runs)}"
        made = {"experiment": experiment, "name": run_name, "status": "RUNNING"}
        self.runs[run_id] = made | {"params": {}, "metrics": [], "files": []}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, status: str) -> None:
        if run_id not in self.runs:
            raise sys.modules["mlflow.exceptions"].MlflowException(f"no run {run_id}")
        self.runs[run_id]["status"] = status

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        self.runs[run_id]["params"] |= dict(params)
        self.runs[run_id]["metrics"] += [(name, value, step) for name, value, _, step in metrics]

    def log_artifact(self, run_id: str, path: str) -> None:
        self.runs[run_id]["files"].append(Path(path).name)

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status


@pytest.fixture
def mlflow(monkeypatch) -> dict[str, dict[str, Any]]:
    """A stand-in for the library; its runs by name."""
    runs: dict[str, dict[str, Any]] = {}
    modules = {
        "mlflow": {"MlflowClient": lambda: Client(runs)},
        "mlflow.exceptions": {"MlflowException": type("MlflowException", (Exception,), {})},
        "mlflow.entities": {"Metric": lambda *given: given, "Param": lambda *given: given},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return runs


class Run:
    """What we use of a run of Weights & Biases."""

    def __init__(self, **given: Any):
        self.given, self.axes, self.rows, self.files = given, {}, [], []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str | None = None, **_: Any) -> None:
        self.axes[name] = step_metric

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def log_artifact(self, artifact: Any) -> None:
        self.files += artifact.files

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class Artifact:
    def __init__(self, name: str, type: str):
        self.name, self.files = name, []

    def add_file(self, path: str) -> None:
        self.files.append(Path(path).name)


@pytest.fixture
def wandb(monkeypatch) -> list[Run]:
    """A stand-in for the library; the runs that were started."""
    runs: list[Run] = []

    def init(**given: Any) -> Run:
        runs.append(Run(**given))
        return runs[-1]

    module = ModuleType("wandb")
    vars(module).update(init=init, Artifact=Artifact, Image=tuple, Histogram=tuple)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def logged(folder: Path, name: str, losses: dict[int, float], *, after: int = 0) -> Loggers:
    """A process of a run that logs these losses by epoch, counted from 0."""
    loggers = started([name], folder, SETTINGS)
    record = Record(folder, loggers)
    record.resume("search", after)
    for step, loss in losses.items():
        record.cost(0.5 + loss, torch.device("cpu"))
        record.log("search", step, {"loss": loss, "seconds": 7 + len(losses), "never": None})
    return loggers


def test_an_mlflow_run_has_settings_epochs_results_and_files(mlflow, tmp_path: Path):
    loggers = logged(tmp_path, "mlflow", {0: 1.0, 1: 0.5})
    (tmp_path / "report.html").write_text("")
    results = {"test_accuracy": 0.75, "seed": 0, "degenerate": None, "seconds": {"search": 1}}
    loggers.tell(lambda one: one.finish(Outcome(results, [], [tmp_path / "report.html"])))
    loggers.tell(lambda one: one.end(0))
    (run,) = mlflow.values()
    assert (run["name"], run["experiment"]) == (tmp_path.name, "experiment archsmith")
    assert run["params"] == {
        "strategy": "darts", "seed": "0", "search.epochs": "2", "space.candidates": "['a', 'b']",
    }  # fmt: skip
    points = [point for point in run["metrics"] if "mib" not in point[0]]
    assert points == [
        ("search/loss", 1.0, 1), ("search/seconds", 9.0, 1), ("search/step_ms", 1500.0, 1),
        ("search/loss", 0.5, 2), ("search/seconds", 9.0, 2), ("search/step_ms", 1000.0, 2),
        ("test_accuracy", 0.75, 0),
    ]  # fmt: skip
    assert (run["files"], run["status"]) == (["report.html"], "FINISHED")


def test_a_wandb_run_has_settings_epochs_results_and_files(wandb, tmp_path: Path):
    loggers = logged(tmp_path, "wandb", {0: 1.0})
    loggers.tell(lambda one: one.histogram("search", 1, "alphas/normal", torch.ones(2)))
    (tmp_path / "report.html").write_text("")
    outcome = Outcome({"test_accuracy": 0.75}, [], [tmp_path / "report.html"])
    loggers.tell(lambda one: one.finish(outcome))
    loggers.tell(lambda one: one.end(75))
    (run,) = wandb
    assert (run.given["name"], run.given["project"]) == (tmp_path.name, "archsmith")
    assert run.given["config"] == SETTINGS
    assert run.axes["search/*"] == "search/epoch"
    assert [row["search/epoch"] for row in run.rows] == [1, 1]
    assert (run.rows[0]["search/loss"], run.rows[0]["search/step_ms"]) == (1.0, 1500.0)
    assert run.rows[1]["search/alphas/normal"] == (1.0, 1.0)
    assert (run.summary, run.files) == ({"test_accuracy": 0.75}, ["report.html"])
    assert run.exit_code == 75


def test_a_resumed_run_is_the_same_and_gets_no_epoch_twice(mlflow, wandb, tmp_path: Path):
    for name in ("mlflow", "wandb"):
        logged(tmp_path / name, name, {0: 1.0, 1: 0.5})
        logged(tmp_path / name, name, {1: 0.5, 2: 0.25}, after=1)  # 0.5 again after a kill
    assert list(mlflow) == ["run0"]
    losses = [(value, step) for name, value, step in mlflow["run0"]["metrics"] if "loss" in name]
    assert losses == [(1.0, 1), (0.5, 2), (0.25, 3)]
    first, again = wandb
    assert first.given["id"] == again.given["id"]
    assert again.given["resume"] == "allow"
    assert [row["search/epoch"] for run in wandb for row in run.rows] == [1, 2, 3]
    ids = json.loads((tmp_path / "wandb" / "loggers.json").read_text())
    assert ids == {"wandb": first.given["id"]}


def test_an_epoch_that_comes_out_otherwise_is_sent_again(mlflow, tmp_path: Path):
    logged(tmp_path, "mlflow", {0: 1.0, 1: 0.5})
    logged(tmp_path, "mlflow", {1: 0.125}, after=1)
    losses = [(value, step) for name, value, step in mlflow["run0"]["metrics"] if "loss" in name]
    assert losses == [(1.0, 1), (0.5, 2), (0.125, 2)]


def test_a_run_that_the_server_does_not_know_is_started_anew(mlflow, tmp_path: Path):
    logged(tmp_path, "mlflow", {0: 1.0})
    mlflow["other"] = mlflow.pop("run0")
    logged(tmp_path, "mlflow", {})
    assert json.loads((tmp_path / "loggers.json").read_text()) == {"mlflow": "run1"}
    assert mlflow["run1"]["params"]["strategy"] == "darts"


def test_a_logger_that_fails_is_left_out_and_told_once(tmp_path: Path, caplog):
    class Broken(Logger):
        package = "broken"

        def scalars(self, *_: object) -> None:
            raise ConnectionError("no\nserver")

    class Working(Logger):
        package, epochs = "working", 0

        def scalars(self, *_: object) -> None:
            self.epochs += 1

    working = Working(tmp_path, {})
    record = Record(tmp_path, Loggers([Broken(tmp_path, {}), working]))
    for step in range(2):
        record.log("search", step, {"loss": 1.0})
    assert caplog.text.count("broken fails (ConnectionError: no server)") == 1
    assert working.epochs == 2
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_what_is_not_installed_is_refused_before_the_search_with_the_command(
    archsmith, tmp_path: Path, monkeypatch
):
    for name in ("mlflow", "wandb"):
        monkeypatch.setattr(LOGGERS[name], "package", f"{name}_is_not_installed")
    said = archsmith(*TWO, "loggers=[tensorboard,mlflow,wandb]")
    assert said.code == 2
    assert "loggers: mlflow, wandb is not installed; pip install 'archsmith[mlflow,wandb]'" in (
        said.err
    )
    assert not (tmp_path / "outputs").exists() or not any((tmp_path / "outputs").iterdir())


def test_a_folder_of_the_packages_name_is_no_package(tmp_path: Path, monkeypatch):
    (tmp_path / "tracked").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(LOGGERS["wandb"], "package", "tracked")
    with pytest.raises(Exception, match="wandb is not installed"):
        check_loggers(["wandb"])


def test_a_logger_that_cannot_start_or_is_unknown_is_refused(archsmith, monkeypatch, wandb):
    monkeypatch.setattr("archsmith.cli.objects.check_loggers", lambda names: None)
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **_: [][0])
    said = archsmith(*TWO, "loggers=[wandb]")
    assert said.code == 2
    assert "loggers: wandb cannot start (IndexError: list index out of range)" in said.err
    said = archsmith(*TWO, "loggers=[mlfow]")
    assert said.code == 2
    assert "loggers: expected a list of tensorboard, mlflow, wandb, found ['mlfow']" in said.err


@pytest.mark.slow
def test_loggers_change_no_result_and_no_name_of_a_run(archsmith, monkeypatch, mlflow, wandb):
    monkeypatch.setattr("archsmith.cli.objects.check_loggers", lambda names: None)
    assert archsmith(*TWO, "loggers=[]").code == 0
    (folder,) = Path("outputs").iterdir()
    assert not (folder / "tensorboard").exists()
    before = (folder / "architecture.json").read_bytes()
    assert archsmith(*TWO, "loggers=[tensorboard,mlflow,wandb]", "resume=never").code == 0
    assert [*Path("outputs").iterdir()] == [folder]
    assert (folder / "architecture.json").read_bytes() == before
    (run,) = mlflow.values()
    assert run["status"] == "FINISHED"
    assert set(run["files"]) == {
        "architecture.json", "results.json", "report.html", "cell_normal.svg", "cell_reduce.svg",
    }  # fmt: skip
    assert run["params"]["search.epochs"] == "2"
    assert {name for name, *_ in run["metrics"]} >= {
        "search/supernet_accuracy", "retrain/train_loss", "test_accuracy", "parameters",
    }  # fmt: skip
    assert wandb[0].exit_code == 0
    assert archsmith(*TWO, "loggers=[mlflow,wandb]", "resume=never").code == 0
    assert len(mlflow) == 2  # a run that starts over is another one


@pytest.mark.slow
def test_real_mlflow_in_a_local_database(archsmith, tmp_path: Path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for _ in range(2):
        said = archsmith(*TWO, "loggers=[mlflow]", "hydra.run.dir=d")
        assert said.code == 0, said.err
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("archsmith").experiment_id])
    assert (run.info.run_name, run.info.status) == ("d", "FINISHED")
    assert run.data.params["strategy"] == "darts"
    history = client.get_metric_history(run.info.run_id, "search/supernet_accuracy")
    assert [point.step for point in history] == [1, 2]
    results = json.loads(Path("d/results.json").read_text())
    assert run.data.metrics["test_accuracy"] == results["test_accuracy"]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"architecture.json", "report.html"} <= files


@pytest.mark.slow
def test_real_wandb_offline(archsmith, tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for _ in range(2):
        said = archsmith(*TWO, "loggers=[wandb]", "hydra.run.dir=d")
        assert said.code == 0, said.err
    identity = json.loads(Path("d/loggers.json").read_text())["wandb"]
    files = [*Path("d/wandb").glob("offline-run-*/run-*.wandb")]
    assert len(files) == 2
    assert {file.name for file in files} == {f"run-{identity}.wandb"}
