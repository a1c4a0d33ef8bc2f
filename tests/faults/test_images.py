"""F3, F21, F33 to F47, F63: images and folders as they come."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.toys import image_tree
from PIL import Image

from archsmith import interrupt
from archsmith.data import image_folder
from archsmith.data.loader import Images
from archsmith.data.roles import Data
from archsmith.data.sets import folder
from archsmith.data.split import Settings
from archsmith.errors import DataError, Interrupted, OutOfMemory
from archsmith.train.evaluate import evaluate
from archsmith.train.record import Progress

QUICK = [
    "data=folder", "search.epochs=1", "search.batch_size=4", "retrain.epochs=1",
    "retrain.batch_size=4", "space.layers=3", "space.nodes=1", "space.channels=4",
    "retrain.layers=3", "retrain.channels=4", "runtime.threads=1", "export.formats=[genotype]",
    "hydra.run.dir=d", "space.candidates=[skip_connect,sep_conv_3x3]",
]  # fmt: skip


def opened(root: Path, **changes: object) -> Data:
    settings = dict(
        image_size=None, channels=None, test_share=None, on_error="abort", workers=0,
        memory_mb=200, limit=None,
        split=0.5, select=0.1, augment={"crop": 0, "flip": False, "cutout": 0}, seed=0,
    )  # fmt: skip
    return folder(root=str(root), **settings | changes)  # type: ignore[arg-type]


def damage(root: Path) -> list[Path]:
    """One of each kind of file that cannot be read."""
    place = root / "train" / "class_0"
    good = (place / "0.png").read_bytes()
    contents = {
        "truncated.png": good[: len(good) // 2],
        "empty.jpg": b"",
        "text.jpg": b"this is no image",
        "garbage.png": b"\xff" * 300,
        "page.png": b"<html></html>",
        "pickled.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'shape': ()}",
    }
    for name, content in contents.items():
        (place / name).write_bytes(content)
    return [place / name for name in contents]


def test_f33_f34_every_bad_file_is_listed_before_training(archsmith, tmp_path: Path):
    image_tree(tmp_path / "i")
    bad = damage(tmp_path / "i")
    said = archsmith(*QUICK, f"data.root={tmp_path / 'i'}")
    assert said.code == 3
    assert f"{len(bad)} of 18 images cannot be read" in said.err
    for path in bad:
        assert f"data: cannot read {path} (" in said.out
    assert not Path("d/checkpoints").exists()


def test_f33_skipping_is_capped_at_one_in_a_hundred_and_counted(tmp_path: Path, caplog):
    image_tree(tmp_path / "i", images=60)
    (tmp_path / "i" / "train" / "class_1" / "7.png").write_bytes(b"")
    data = opened(tmp_path / "i", on_error="skip")
    assert data.skipped == 1
    assert caplog.text.count("data: skipped") == 1
    (tmp_path / "i" / "train" / "class_1" / "8.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 120 images cannot be read.*skip allows 1%"):
        opened(tmp_path / "i", on_error="skip")


def test_f34_a_bomb_is_refused_by_its_header(tmp_path: Path):
    image_tree(tmp_path / "i")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "i" / "train" / "class_0" / "bomb.png")
    with pytest.raises(DataError, match=r"bomb.png \(.*decompression bomb"):
        opened(tmp_path / "i")


def test_an_empty_test_image_is_said_at_the_start(tmp_path: Path, caplog):
    image_tree(tmp_path / "i")
    (tmp_path / "i" / "test" / "class_0" / "0.png").write_bytes(b"")
    opened(tmp_path / "i")
    assert "test/class_0/0.png is empty" in caplog.text


@pytest.mark.slow
def test_f35_f36_a_folder_of_every_mode_and_size_runs(archsmith, tmp_path: Path):
    root = tmp_path / "i"
    image_tree(root, images=8)
    place = root / "train" / "class_0"
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "I;16", "1"):
        Image.new(mode, (8, 8)).save(place / f"{mode.replace(';', '')}.tif")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (33, 47)).save(place / "turned.jpg", exif=turned)
    Image.new("RGB", (4000, 3000)).save(place / "huge.jpg")
    Image.new("RGB", (1, 1)).save(place / "dot.png")
    said = archsmith(*QUICK, f"data.root={root}")
    assert said.code == 0, said.err
    assert opened(root).input_shape == (3, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "channels", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 13))]
)
def test_f37_any_number_of_channels_runs(channels: int, archsmith, tmp_path: Path):
    source = np.random.default_rng(0)
    for part in ("train", "test"):
        for c in range(2):
            (tmp_path / "i" / part / str(c)).mkdir(parents=True)
            for i in range(5):
                pixels = source.integers(256, size=(9, 7, channels), dtype=np.uint8)
                np.save(tmp_path / "i" / part / str(c) / f"{i}.npy", pixels)
    said = archsmith(*QUICK, f"data.root={tmp_path / 'i'}")
    assert said.code == 0, said.err
    assert opened(tmp_path / "i").input_shape == (channels, 9, 7)


@pytest.mark.parametrize(("classes", "size"), [(2, 16), (6, 36), (1000, 4000)])
def test_f38_few_and_many_classes_and_the_top_five(classes: int, size: int):
    y = torch.arange(size) % classes
    logits = torch.nn.functional.one_hot(y, classes).float()

    class Echo(torch.nn.Module):
        def forward(self, x: torch.Tensor, mixture: object) -> torch.Tensor:
            return x

    found = evaluate(Echo(), [(logits, y)])
    assert found["accuracy"] == found["balanced_accuracy"] == 1.0
    assert ("top5_accuracy" in found) == (classes > 5)


STRUCTURES = {
    "f38_one_class": (lambda r: shutil.rmtree(r / "train" / "class_1"), "expected at least 2"),
    "f39_empty_class": (lambda r: (r / "train" / "new").mkdir(), "train/new: no images"),
    "f39_class_only_in_val": (
        lambda r: shutil.copytree(r / "train" / "class_0", r / "val" / "other"),
        "class unknown in train/",
    ),
    "f39_class_missing_in_val": (
        lambda r: shutil.copytree(r / "train" / "class_0", r / "val" / "class_0"),
        "no class folder 'class_1'",
    ),
    "f39_no_test": (lambda r: shutil.rmtree(r / "test"), "no test/ folder"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_f38_f39_a_folder_that_cannot_be_used_is_named(name: str, archsmith, tmp_path: Path):
    change, message = STRUCTURES[name]
    image_tree(tmp_path / "i")
    change(tmp_path / "i")
    said = archsmith(*QUICK, f"data.root={tmp_path / 'i'}")
    assert said.code == 3
    assert message in said.err


def test_f40_what_is_no_image_is_passed_over(tmp_path: Path):
    image_tree(tmp_path / "i")
    place = tmp_path / "i" / "train" / "class_0"
    (place / ".DS_Store").write_bytes(b"x")
    (place / "notes.txt").write_text("x")
    (place / "nested").mkdir()
    shutil.copy(place / "0.png", place / "nested" / "0.png")
    (place / "loop").symlink_to(place.parent)
    long = "größe_" + "n" * 200 + ".png"
    shutil.copy(place / "0.png", place / long)
    assert len(opened(tmp_path / "i").images.labels) == 14


@pytest.mark.parametrize("memory_mb", [200, 0])
def test_f42_copies_in_the_test_images_are_counted_with_examples(
    memory_mb: int, tmp_path: Path, caplog
):
    """In memory and on disk; said by the final evaluation, which is the first to open them."""
    root = tmp_path / "i"
    image_tree(root)
    for i in range(4):
        source = root / "train" / "class_0" / f"{i}.png"
        Image.open(source).save(root / "test" / "class_0" / f"copy_{i}.bmp")  # equal pixels
    data = opened(root, memory_mb=memory_mb)
    assert "exact copies" not in caplog.text
    data.test(4)
    assert "4 images of 'test' are exact copies of training images" in caplog.text
    assert "test/class_0/copy_0.bmp of train/class_0/0.png, " in caplog.text
    assert "copy_3" not in caplog.text  # three examples


@pytest.mark.parametrize("memory_mb", [200, 0])
@pytest.mark.parametrize("own", [True, False], ids=["own val folder", "random split"])
def test_f42_copies_between_train_and_val_are_said_once_before_training(
    own: bool, memory_mb: int, tmp_path: Path, caplog
):
    root = tmp_path / "i"
    image_tree(root, images=2)
    if own:
        shutil.copytree(root / "train", root / "val")
    else:  # the random split shares out what is the same image, over and over
        for i in range(20):
            for c in range(2):
                place = root / "train" / f"class_{c}"
                shutil.copy(place / "0.png", place / f"copy_{i}.png")
    data = opened(root, memory_mb=memory_mb)
    for _ in range(2):
        data.loaders(2, one_level=False, seed=0)
    assert caplog.text.count("images of 'val' are exact copies of training images") == 1
    example = "val/class_0/0.png of train/class_0/0.png" if own else ".png of train/class_0/"
    assert example in caplog.text


def test_f43_three_images_and_a_batch_that_is_larger(tmp_path: Path):
    image_tree(tmp_path / "i", images=2)
    (tmp_path / "i" / "train" / "class_1" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images for role '\w+', expected 2 or more"):
        opened(tmp_path / "i").loaders(64, one_level=False, seed=0)
    batches = [len(y) for _, y in opened(tmp_path / "i").training(64, 0)]
    assert batches == [3]
    assert [len(y) for _, y in opened(tmp_path / "i").training(2, 0)] == [2]  # no batch of one


def test_f44_a_rare_class_is_in_every_part_and_counts_alike(caplog):
    labels = torch.tensor([0] * 1000 + [1] * 3)
    pixels = torch.randint(256, (1003, 1, 4, 4), dtype=torch.uint8)
    settings = Settings(None, 0.5, 0.1, {"crop": 0, "flip": False, "cutout": 0}, 0)
    data = Data("x", ["a", "b"], Images(pixels, labels), lambda _: pytest.fail("test"), settings)
    parts = data.split(one_level=False)
    assert {role: int(labels[index].sum()) for role, index in parts.items()} == {
        "train": 1, "val": 1, "select": 1
    }  # fmt: skip
    assert "imbalanced, class 'a' has 1000 training images and 'b' 3" in caplog.text

    class Majority(torch.nn.Module):
        def forward(self, x: torch.Tensor, mixture: object) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    found = evaluate(Majority(), data.plain("select", parts["select"], 64))
    assert found["accuracy"] > 0.99
    assert found["balanced_accuracy"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("change", ["added", pytest.param("changed", marks=pytest.mark.slow)])
def test_f45_data_that_changed_since_is_refused_by_name(change: str, archsmith, tmp_path: Path):
    root = tmp_path / "i"
    image_tree(root)
    assert archsmith(*QUICK, f"data.root={root}", "task=search").code == 0
    place = root / "train" / "class_0"
    if change == "added":
        shutil.copy(place / "0.png", place / "more.png")
    else:
        Image.new("RGB", (8, 8)).save(place / "0.png")
    said = archsmith(*QUICK, f"data.root={root}", "task=search")
    assert said.code == 6
    assert "differing in data_fingerprint" in said.err
    assert archsmith(*QUICK, f"data.root={root}", "task=search", "resume=never").code == 0


@pytest.mark.slow
def test_f47_a_run_leaves_the_folder_of_its_images_as_it_was(archsmith, tmp_path: Path):
    """So it may be read-only: not even a cache or a link is put there."""
    root = tmp_path / "i"
    image_tree(root)

    def seen() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in (root, *root.rglob("*"))}

    before = seen()
    if os.geteuid() != 0:  # root may write everywhere
        for place, _, _ in os.walk(root):
            os.chmod(place, 0o555)
    assert archsmith(*QUICK, f"data.root={root}").code == 0
    assert seen() == before


def test_f47_slow_data_is_said_once_with_its_share(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr("archsmith.train.record.time.perf_counter", lambda: now[0])

    def slow():
        for _ in range(20):
            now[0] += 3.0
            yield None

    with caplog.at_level(logging.WARNING), Progress("search", 40) as progress:
        for _ in range(2):
            for _ in progress.batches(slow()):
                now[0] += 1.0
    assert caplog.text.count("75% of the epoch was spent waiting for images") == 1


@pytest.mark.slow
def test_f63_the_test_images_are_read_by_the_final_evaluation_alone(archsmith, tmp_path: Path):
    root = tmp_path / "i"
    image_tree(root)
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"not read yet")
    said = archsmith(*QUICK, f"data.root={root}")
    assert said.code == 3
    assert "test/class_0/0.png" in said.err
    results = json.loads(Path("d/results.json").read_text())
    assert set(results["seconds"]) == {"search", "retrain"}
    image_tree(tmp_path / "fresh")
    shutil.rmtree(root / "test")
    shutil.copytree(tmp_path / "fresh" / "test", root / "test")
    again = archsmith(*QUICK, f"data.root={root}")
    assert again.code == 6  # other test images than the run began with
    assert archsmith(*QUICK, f"data.root={root}", "resume=force").code == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_f21_images_on_disk_go_on_at_the_next_batch(workers: int, tmp_path: Path):
    image_tree(tmp_path / "i", images=7)

    def loader():
        return opened(tmp_path / "i", memory_mb=0, workers=workers).training(4, seed=1)

    whole = [x for x, _ in loader()]
    first = loader()
    batches = iter(first)
    next(batches)
    state = first.state_dict()  # more may be decoded already; only what was handed over counts
    del batches
    second = loader()
    second.load_state_dict(state)
    rest = [x for x, _ in second]
    assert len(rest) == len(whole) - 1
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[1:], strict=True))


def test_f03_a_worker_that_a_signal_ended_is_no_lack_of_memory():
    """A signal to all processes may meet a worker that is just starting."""

    def batches() -> Iterator[int]:
        yield 1
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

    with pytest.raises(OutOfMemory, match="lower data"):
        list(image_folder._living(batches()))
    with interrupt.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="run the same command"):
            list(image_folder._living(batches()))


@pytest.mark.slow
def test_f03_a_signal_to_the_whole_group_leaves_the_workers_at_work(tmp_path: Path):
    """Schedulers signal every process; the parent saves, and its workers must not die before."""
    image_tree(tmp_path / "i", images=7)
    data = opened(tmp_path / "i", memory_mb=0, workers=2)
    with interrupt.listening():
        batches = iter(data.training(4, seed=1))
        for _ in range(2):  # one of each worker: both listen to signals by now
            next(batches)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(list(batches)) == 2
        assert interrupt.requested()
