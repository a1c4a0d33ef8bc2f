"""F2, F6 to F12, F14, F15, F64: files that are torn, full, foreign, old or hostile."""

import errno
import io
import json
import os
import pickle
import signal
import zipfile
from pathlib import Path

import pytest
import torch

from archsmith import interrupt
from archsmith.errors import CheckpointError, ConfigError
from archsmith.files import write_atomically
from archsmith.loggers.logger import Loggers
from archsmith.loggers.tensorboard import TensorBoard
from archsmith.search.pareto import Pareto
from archsmith.train.checkpoint import FORMAT, Checkpoints, checkpoint_seconds
from archsmith.train.record import Record, Results
from archsmith.train.run_folder import RunFolder, locked


def saved(folder: Path, *states: dict, **identity: object) -> Checkpoints:
    found = Checkpoints(folder, "search", identity)
    for state in states:
        found.save(state)
    return found


def newest(folder: Path) -> Path:
    return max(folder.glob("search_*.pt"))


def state(n: int) -> dict:
    return {"n": n, "tensor": torch.full((300,), float(n))}


def test_two_are_kept_and_the_newest_is_loaded(tmp_path: Path):
    found = saved(tmp_path, state(1), state(2), state(3)).load()
    assert found["n"] == 3
    assert torch.equal(found["tensor"], state(3)["tensor"])
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "search_000002.pt", "search_000003.pt", "search_manifest.json",
    ]  # fmt: skip


def test_nothing_saved_is_none(tmp_path: Path):
    assert Checkpoints(tmp_path, "search", {}).load() is None


class Killed(BaseException):
    """Stands for a SIGKILL."""


@pytest.mark.parametrize("moment", ["write", "fsync", "replace", "manifest"])
def test_f02_killed_during_a_write_leaves_the_one_before(moment: str, tmp_path: Path, monkeypatch):
    checkpoints = saved(tmp_path, state(1))

    def die(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "write":
            (tmp_path / ".search_000002.pt.tmp").write_bytes(b"half")
        elif moment == "manifest":
            real = os.replace
            patch.setattr(os, "replace", lambda a, b: die() if "manifest" in str(b) else real(a, b))
        else:
            patch.setattr(os, moment, die)
        if moment != "write":
            with pytest.raises(Killed):
                checkpoints.save(state(2))
    found = Checkpoints(tmp_path, "search", {})
    assert found.load()["n"] == 1
    assert {p.name for p in tmp_path.glob("*search_*.pt*")} == {"search_000001.pt"}
    found.save(state(2))
    assert found.load()["n"] == 2


def test_f06_a_signal_during_a_save_waits_for_it(tmp_path: Path, monkeypatch):
    real = os.fsync

    def asked(file: int) -> None:
        if not interrupt.requested():
            os.kill(os.getpid(), signal.SIGTERM)
        real(file)

    monkeypatch.setattr(os, "fsync", asked)
    with interrupt.listening():
        checkpoints = saved(tmp_path, state(1))
        assert interrupt.requested()
    assert checkpoints.load()["n"] == 1


@pytest.mark.parametrize("damage", ["truncated", "bit", "empty", "gone"])
def test_f07_f08_f09_a_damaged_newest_is_said_and_the_one_before_used(
    damage: str, tmp_path: Path, caplog
):
    checkpoints = saved(tmp_path, state(1), state(2))
    path = newest(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    short = {"truncated": content[:-1024], "bit": content, "empty": b"", "gone": b""}[damage]
    path.write_bytes(short)
    if damage == "gone":
        path.unlink()
    assert checkpoints.load()["n"] == 1
    assert "search_000002.pt is damaged or missing; the checkpoint before it is used" in caplog.text


def test_f07_both_damaged_is_an_error_that_says_how_to_start_over(tmp_path: Path):
    checkpoints = saved(tmp_path, state(1), state(2))
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no intact checkpoint among 2; set resume=never"):
        checkpoints.load()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_f10_a_full_disk_keeps_the_old_checkpoint_and_says_so(
    call: str, tmp_path: Path, monkeypatch
):
    checkpoints = saved(tmp_path, state(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr("archsmith.train.checkpoint.write_atomically", full)
        with pytest.raises(CheckpointError, match=r"No space left.*one before it is kept"):
            checkpoints.save(state(2))
    assert checkpoints.load()["n"] == 1
    assert list(tmp_path.glob(".*")) == []
    checkpoints.save(state(2))
    assert checkpoints.load()["n"] == 2


def test_f10_what_reads_back_otherwise_is_not_trusted(tmp_path: Path, monkeypatch):
    checkpoints = saved(tmp_path, state(1))
    real = write_atomically

    def lossy(path: Path, content: bytes) -> None:
        real(path, content[:-1] if path.suffix == ".pt" else content)

    monkeypatch.setattr("archsmith.train.checkpoint.write_atomically", lossy)
    with pytest.raises(CheckpointError, match="reads back otherwise"):
        checkpoints.save(state(2))
    assert checkpoints.load()["n"] == 1


def test_f11_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"hydra.run.dir: nothing can be written in"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


def test_f11_a_file_in_the_place_of_the_folder_is_one_line(archsmith, tmp_path: Path):
    (tmp_path / "run").write_text("")
    said = archsmith("data=synthetic", f"hydra.run.dir={tmp_path / 'run'}")
    assert said.code == 2
    assert said.err.strip().splitlines()[-1] == (
        f"archsmith: {tmp_path / 'run'}: File exists, expected a folder that can be written; move "
        "it away, or set hydra.run.dir"
    )


class Payload:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def planted(folder: Path, content: bytes, name: str = "search_000001.pt") -> Checkpoints:
    """A checkpoint somebody else made, with a manifest that vouches for it."""
    from hashlib import sha256

    folder.mkdir(exist_ok=True)
    (folder / "search_000001.pt").write_bytes(content)
    entry = {"file": name, "sha256": sha256(content).hexdigest()}
    (folder / "search_manifest.json").write_text(json.dumps([entry]))
    return Checkpoints(folder, "search", {})


def archive(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_f12_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path):
    proof = tmp_path / "executed"
    bodies = [
        archive({"format": FORMAT, "identity": {}, "state": Payload(proof)}),
        pickle.dumps(Payload(proof)),
    ]
    for body in bodies:
        with pytest.raises(CheckpointError, match="refused, not a checkpoint"):
            planted(tmp_path / "c", body).load()
    assert not proof.exists()


def test_f12_a_packed_bomb_is_refused_unopened(tmp_path: Path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", b"\0" * 50_000_000)
    with pytest.raises(CheckpointError, match="packed data, which we never write"):
        planted(tmp_path, buffer.getvalue()).load()


@pytest.mark.parametrize("name", ["../victim", "/etc/hostname", "search_1.pt/../../victim", 5])
def test_f12_a_manifest_cannot_point_outside(name: object, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("dear")
    checkpoints = planted(tmp_path / "c", archive({}), name)  # type: ignore[arg-type]
    for act in (checkpoints.load, lambda: checkpoints.save(state(1))):
        with pytest.raises(CheckpointError, match="not readable; set resume=never"):
            act()
    checkpoints.clear()
    assert victim.read_text() == "dear"


def test_f12_a_series_cannot_have_files_outside_removed(tmp_path: Path, toy_darts):
    victim = tmp_path / "victim"
    victim.write_text("dear")
    run = tmp_path / "run"
    run.mkdir()
    point = {"architecture": "../victim", "epoch": 9}
    (run / "pareto.json").write_text(json.dumps({"points": [point]}))
    with pytest.raises(CheckpointError, match=r"pareto.json: not readable"):
        Pareto(run, toy_darts, 0)
    assert victim.read_text() == "dear"


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"x"', "null"])
@pytest.mark.parametrize("name", ["phases.json", "results.json"])
def test_f12_torn_files_of_a_run_are_one_line(name: str, text: str, tmp_path: Path):
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=f"{name}: not readable; set resume=never"):
        Results(tmp_path) if name == "results.json" else RunFolder(tmp_path, resume="auto")


def test_f14_another_configuration_is_refused_by_the_keys_that_differ(tmp_path: Path, caplog):
    saved(tmp_path, state(1), strategy={"clip": 5.0}, space={"channels": 8}, seed=0)
    other = {"strategy": {"clip": 1.0}, "space": {"channels": 16}, "seed": 0}
    with pytest.raises(
        CheckpointError, match=r"differing in space.channels, strategy.clip; .*resume=force"
    ):
        Checkpoints(tmp_path, "search", other).load()
    assert Checkpoints(tmp_path, "search", other, force=True).load()["n"] == 1
    assert "differing in space.channels, strategy.clip; taken all the same" in caplog.text


def test_f14_a_finished_phase_is_done_again_by_force(tmp_path: Path, caplog):
    RunFolder(tmp_path, resume="auto").finish("search", {"epochs": 1})
    assert RunFolder(tmp_path, resume="auto").done("search", {"epochs": 1})
    with pytest.raises(CheckpointError, match="differing in epochs"):
        RunFolder(tmp_path, resume="auto").done("search", {"epochs": 2})
    assert not RunFolder(tmp_path, resume="force").done("search", {"epochs": 2})
    assert "differing in epochs; taken all the same" in caplog.text


def test_f15_a_checkpoint_of_an_older_version_is_named_with_both(tmp_path: Path):
    first = archive({"identity": {}, "step": 1, "state": {}})  # as version 1 wrote it
    with pytest.raises(CheckpointError, match=r"format 'archsmith.checkpoint/1', expected '.*/2'"):
        planted(tmp_path, first).load()


def board(folder: Path) -> Record:
    return Record(folder, Loggers([TensorBoard(folder, {})]))


def test_f64_a_log_that_cannot_be_written_is_said_once(tmp_path: Path, caplog):
    record = board(tmp_path)
    (tmp_path / "metrics.jsonl").mkdir()
    (tmp_path / "tensorboard").write_text("")
    for step in range(3):
        record.log("search", step, {"loss": 1.0})
    record.close()
    assert caplog.text.count("the log cannot be written") == 1
    assert caplog.text.count("loggers: tensorboard fails") == 1


def test_f22_a_phase_purges_only_its_own_points(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = board(tmp_path)
    for step in range(4):
        first.log("search", step, {"loss": 1.0})
        first.log("retrain", step, {"loss": 1.0})
    first.close()
    again = board(tmp_path)
    again.resume("retrain", 2)
    for step in (2, 3):
        again.log("retrain", step, {"loss": 2.0})
    again.close()
    for phase, values in (("search", [1.0] * 4), ("retrain", [1.0, 1.0, 2.0, 2.0])):
        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        points = events.Scalars(f"{phase}/loss")
        assert [p.step for p in points] == [1, 2, 3, 4]
        assert [p.value for p in points] == values


def test_a_torn_last_line_of_the_metrics_is_dropped(tmp_path: Path):
    record = Record(tmp_path)
    record.log("search", 0, {"loss": 1.0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"phase": "sea')
    record.resume("search", 1)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_checkpoint_is_due_by_time_and_never_takes_more_than_its_share(
    tmp_path: Path, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr("archsmith.train.checkpoint.time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, "search", {}, every_seconds=60)
    assert not checkpoints.due()
    assert checkpoints.due(epoch_over=True)  # the first one's cost is not known yet
    checkpoints._cost = 2.0
    for seconds, within, epoch_over in ((59, False, False), (199, False, False), (200, True, True)):
        now[0] = 100.0 + seconds
        assert (checkpoints.due(), checkpoints.due(epoch_over=True)) == (within, epoch_over)
    assert Checkpoints(tmp_path, "search", {}, every_seconds=0).due()


@pytest.mark.parametrize("value", [-1, "often", None, True, float("nan"), float("inf")])
def test_f48_a_wrong_interval_is_refused(value: object):
    with pytest.raises(ValueError, match=r"^every_seconds: expected a (finite )?number"):
        checkpoint_seconds(value)  # type: ignore[arg-type]
