"""Event files are rewritten without what is unwanted, and with all that is not."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from archsmith.loggers.event_files import PATTERN, drop


def written(folder: Path, **points: list[tuple[int, float]]) -> Path:
    """A new event file with these points by tag."""
    before = set(folder.glob(PATTERN))
    with SummaryWriter(str(folder)) as writer:
        for tag, values in points.items():
            for step, value in values:
                writer.add_scalar(tag, value, step)
    (new,) = set(folder.glob(PATTERN)) - before
    return new


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]
    }


def test_only_what_is_unwanted_goes(tmp_path: Path):
    written(tmp_path, a=[(1, 1.0), (2, 2.0)], b=[(2, 3.0)])
    drop(tmp_path, lambda tag, step: tag == "a" and step == 2)
    assert points(tmp_path) == {"a": [(1, 1.0)], "b": [(2, 3.0)]}
    (file,) = tmp_path.iterdir()
    assert "tfevents" in file.name


def test_a_file_without_unwanted_values_is_left_alone(tmp_path: Path):
    file = written(tmp_path, a=[(1, 1.0)])
    before = file.stat().st_mtime_ns
    drop(tmp_path, lambda tag, step: step > 1)
    assert [*tmp_path.iterdir()] == [file]
    assert file.stat().st_mtime_ns == before
    drop(tmp_path / "none", lambda tag, step: True)  # nor is a folder made


def test_the_last_of_several_values_of_a_step_is_kept(tmp_path: Path):
    written(tmp_path, a=[(1, 1.0), (2, 2.0)])
    written(tmp_path, a=[(2, 5.0), (3, 6.0)])
    drop(tmp_path, lambda tag, step: False)
    assert points(tmp_path) == {"a": [(1, 1.0), (2, 5.0), (3, 6.0)]}
    assert len([*tmp_path.iterdir()]) == 1


def test_a_record_that_a_kill_cut_short_is_left_out_and_later_files_are_read(tmp_path: Path):
    torn = written(tmp_path, a=[(1, 1.0), (2, 2.0)])
    torn.write_bytes(torn.read_bytes()[:-5])
    with open(torn.with_name(torn.name + ".zeros"), "wb") as file:
        file.write(torn.read_bytes() + bytes(64))  # a page that the disk never wrote
    written(tmp_path, a=[(3, 3.0)], b=[(1, 1.0)])
    drop(tmp_path, lambda tag, step: tag == "b")
    assert points(tmp_path) == {"a": [(1, 1.0), (3, 3.0)]}
