import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from archsmith.data.image_file import attempt, height_width, infer_shape
from archsmith.data.image_folder import ImageFiles, load
from archsmith.data.image_tree import scan
from archsmith.errors import DataError

RED = (254, 0, 0)


def save(path: Path, mode: str = "L", size: tuple[int, int] = (4, 4), colour=9, **kwargs) -> Path:
    """`size` is PIL's (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **kwargs)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, 3 + 2 training images and 1 + 1 test images, all grey 4 x 4."""
    for part, count in (("train", {"cat": 3, "dog": 2}), ("test", {"cat": 1, "dog": 1})):
        for name, images in count.items():
            for i in range(images):
                save(tmp_path / part / name / f"{i}.png", colour=10 * i)
    return tmp_path


def read(root: Path, shape=(1, 4, 4), part="train", memory_mb=200.0, workers=0, on_error="abort"):
    found = scan(str(root))[1][part]
    return load(found, shape, memory_mb=memory_mb, workers=workers, on_error=on_error)


def pixels(images) -> torch.Tensor:
    ((x, _),) = images.batches([torch.arange(len(images.labels))])
    return x


def test_scan_lists_classes_and_files_in_order(tree):
    save(tree / "val" / "cat" / "a.png")
    save(tree / "val" / "dog" / "ü b.PNG")
    classes, parts, passed_over = scan(str(tree))
    assert passed_over.counts == {}
    assert classes == ("cat", "dog")
    assert sorted(parts) == ["test", "train", "val"]
    assert parts["train"].files[2:4] == ("train/cat/2.png", "train/dog/0.png")
    assert parts["train"].labels.tolist() == [0, 0, 0, 1, 1]
    assert parts["val"].files == ("val/cat/a.png", "val/dog/ü b.PNG")
    assert parts["train"].sizes[0] == (tree / "train/cat/0.png").stat().st_size


def test_a3_scan_counts_what_it_passes_over_by_reason(tree):
    expected = scan(str(tree))[1]["train"]
    save(tree / "train" / "cat" / ".hidden.png")
    save(tree / "train" / ".cache" / "0.png")
    save(tree / "train" / "stray.png")
    save(tree / "valid" / "cat" / "0.png")
    for name in ("a.heic", "b.HEIC", "c.eps", "plain"):
        (tree / "train" / "cat" / name).write_text("not to be opened")
    (tree / "train" / "cat" / "notes.txt").write_text("no image")
    (tree / "train" / "README.md").write_text("no class")
    os.symlink(tree / "train", tree / "train" / "loop")
    os.symlink("..", tree / "train" / "up")
    os.symlink("..", tree / "train" / "cat" / "up.png")
    os.symlink("self.png", tree / "train" / "cat" / "self.png")
    os.symlink("myself", tree / "train" / "myself")
    os.symlink("gone.png", tree / "train" / "cat" / "dangling.png")
    classes, parts, passed_over = scan(str(tree))
    assert classes == ("cat", "dog")
    assert passed_over.counts == {
        "hidden": 2,
        "of suffix .heic": 2,
        "of suffix .eps": 1,
        "of suffix .txt": 1,
        "without suffix": 1,
        "beside the class folders": 3,
        "beside train/ and test/": 1,
        "link to a folder around it": 3,
        "link that leads nowhere": 2,
    }
    assert passed_over.examples["of suffix .heic"] == ["train/cat/a.heic", "train/cat/b.HEIC"]
    assert "1 beside train/ and test/ (as valid)" in passed_over.lines()
    assert parts["train"].files == expected.files
    assert torch.equal(parts["train"].labels, expected.labels)


def test_a3_subfolders_are_walked_in_the_order_of_torchvision(tree):
    from torchvision.datasets import ImageFolder  # takes seconds to import

    for name in ("b/0.png", "a/1.png", "a/c/2.png", "a-b/3.png", "a/0.png"):
        save(tree / "train" / "cat" / name)
    os.symlink(tree / "train" / "dog", tree / "train" / "cat" / "linked")
    os.symlink(tree / "train" / "cat", tree / "train" / "dog" / "back")
    files = scan(str(tree))[1]["train"].files
    assert "train/cat/linked/0.png" in files
    assert "train/dog/back/0.png" in files
    for link in ("cat/linked", "dog/back"):  # which torchvision would follow for ever
        os.remove(tree / "train" / link)
    files = scan(str(tree))[1]["train"].files
    theirs = ImageFolder(tree / "train").samples
    assert [str(tree / file) for file in files] == [path for path, _ in theirs]


@pytest.mark.parametrize(
    "suffix", ["jfif", "jpe", "jp2", "avif", "tga", "ico", "qoi", "JPG", "pbm"]
)
def test_a3_what_pillow_opens_is_read(tree, suffix):
    path = save(tree / "train" / "cat" / f"x.{suffix}", "1" if suffix == "pbm" else "RGB", (20, 20))
    assert f"train/cat/x.{suffix}" in scan(str(tree))[1]["train"].files
    assert isinstance(attempt(str(path), (3, 4, 4)), np.ndarray)


def test_a_class_of_unknown_files_is_refused_with_their_suffix(tree):
    (tree / "train" / "eel").mkdir()
    (tree / "train" / "eel" / "0.heic").write_text("")
    with pytest.raises(DataError, match=r"no images, .* found 1 of suffix \.heic \(as train/eel/0"):
        scan(str(tree))


def test_a_linked_class_folder_elsewhere_counts(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "0.png")
    os.symlink(elsewhere, tree / "train" / "eel")
    assert scan(str(tree))[0] == ("cat", "dog", "eel")


def test_very_long_names_are_read(tree):
    save(tree / "train" / "cat" / ("x" * 240 + ".png"))
    assert len(read(tree)[1]) == 6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t / "nowhere", "nowhere: no such folder, expected train/<class>/ .*data.root"),
        (lambda t: (t / "train").rename(t / "old"), "no train/ folder, expected train/<class>/"),
        (lambda t: (t / "test").rename(t / "old"), "no test/ folder, expected train/<class>/"),
        (
            lambda t: (t / "train" / "eel").mkdir(),
            "/train/eel: no images, expected files that Pillow opens.*add some, or delete the fol",
        ),
        (
            lambda t: (t / "test" / "eel").mkdir(),
            "/test/eel: class unknown in train/, expected one",
        ),
        (
            lambda t: (t / "train" / "dog").rename(t / "dog"),
            r"/train: 1 class folder\(s\) \(cat\), expected at least 2; add one folder per class",
        ),
        (
            lambda t: save(t / "val" / "cat" / "0.png"),
            "/val: no class folder 'dog', expected all classes of train/; .*delete val/",
        ),
        (lambda t: save(t / "val" / "eel" / "0.png"), "/val/eel: class unknown in train/"),
    ],
)
def test_what_scan_refuses(tree, damage, message):
    root = damage(tree)
    with pytest.raises(DataError, match=message) as caught:
        scan(str(root if root == tree / "nowhere" else tree))
    assert "\n" not in str(caught.value)


def test_scan_refuses_no_root_and_a_test_folder_without_classes(tree):
    with pytest.raises(DataError, match=r"data\.root: null, expected a folder with train/<class>/"):
        scan(None)
    for name in ("cat", "dog"):
        (tree / "test" / name).rename(tree / name)
    with pytest.raises(DataError, match="/test: no class folders, expected train/<class>/"):
        scan(str(tree))


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """10 images of a cat, 7 of a dog, in class folders alone."""
    for name, count in (("cat", 10), ("dog", 7)):
        for i in range(count):
            save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_of_class_folders_alone_a_share_of_each_class_is_the_test(flat):
    found = scan(str(flat))
    assert found.classes == ("cat", "dog")
    assert torch.bincount(found.parts["test"].labels).tolist() == [2, 1]  # a fifth, rounded
    assert torch.bincount(found.parts["train"].labels).tolist() == [8, 6]
    names = [set(part.files) for part in found.parts.values()]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 17
    listed = (flat / "test_images.txt").read_text().splitlines()
    assert sorted(found.parts["test"].files) == listed
    assert not found.passed_over.counts
    assert scan(str(flat)).parts["test"].identity() == found.parts["test"].identity()


def test_images_that_are_added_never_become_test_images(flat):
    before = set(scan(str(flat)).parts["test"].files)
    for i in range(10, 60):
        save(flat / "cat" / f"{i}.png")
    assert set(scan(str(flat)).parts["test"].files) == before
    (flat / "test_images.txt").unlink()  # drawn again, now of all
    assert torch.bincount(scan(str(flat)).parts["test"].labels).tolist() == [12, 1]


def test_the_share_is_a_setting_of_class_folders_alone(flat, tree):
    assert len(scan(str(flat), 0.5).parts["test"].files) == 5 + 4
    with pytest.raises(DataError, match=r"data\.test_share: 0\.5, but .* has parts of its own"):
        scan(str(tree), 0.5)


def test_a_list_that_cannot_be_written_is_said_and_the_split_is_the_same(flat, caplog, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("archsmith.data.parts.write_atomically", refuse)
    first, second = (scan(str(flat)).parts["test"].files for _ in range(2))
    assert first == second
    assert "test_images.txt cannot be written (Read-only file system)" in caplog.text
    assert not (flat / "test_images.txt").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda t: save(t / "eel" / "0.png"),
            "class 'eel' has 1 images, 0 of them for",
        ),
        (lambda t: (t / "dog").rename(t.parent / "dog"), r"1 class folder\(s\) \(cat\), expected"),
        (lambda t: (t / "eel").mkdir(), "/photos/eel: no images, expected files that Pillow opens"),
        (
            lambda t: (t / "test_images.txt").write_text("cat/0.png"),
            "'dog' has 7 images, 0 of",
        ),
    ],
)
def test_what_scan_refuses_of_class_folders_alone(flat, damage, message):
    damage(flat)
    with pytest.raises(DataError, match=message):
        scan(str(flat))


def test_the_training_part_alone_is_not_split_again(tree):
    with pytest.raises(DataError, match=r"/train: the images of train/ alone; set data\.root="):
        scan(str(tree / "train"))


def test_identity_follows_name_and_size_not_time(tree):
    before = scan(str(tree))[1]["test"].identity()
    os.utime(tree / "test" / "cat" / "0.png", (1, 1))
    assert scan(str(tree))[1]["test"].identity() == before
    with open(tree / "test" / "cat" / "0.png", "ab") as file:
        file.write(b"x")
    assert scan(str(tree))[1]["test"].identity() != before


def test_training_images_are_those_of_train_and_then_those_of_val(tree):
    assert scan(str(tree)).training.files == scan(str(tree)).parts["train"].files
    for name in ("cat", "dog"):
        save(tree / "val" / name / "0.png")
    found = scan(str(tree))
    assert found.training.files == found.parts["train"].files + found.parts["val"].files
    assert found.training.labels.tolist() == [0, 0, 0, 1, 1, 0, 1]
    assert len(found.training.sizes) == 7


def test_shape_is_the_commonest_size_not_square(tmp_path):
    sizes = [(6, 4), (33, 47), (6, 4), (8, 8)]
    paths = [str(save(tmp_path / f"{i}.png", size=size)) for i, size in enumerate(sizes)]
    assert infer_shape(paths, None, None) == (1, 4, 6)
    assert infer_shape(paths, 5, None) == (1, 5, 5)
    assert infer_shape(paths, [5, 7], 3) == (3, 5, 7)


def test_shape_counts_the_sides_after_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [str(save(tmp_path / "0.jpg", size=(6, 4), exif=exif))]
    assert infer_shape(paths, None, None) == (1, 6, 4)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        ("1", 1), ("L", 1), ("I;16", 1), ("LA", 3), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3),
    ],
)  # fmt: skip
def test_channels_are_one_only_if_all_images_are_grey(tmp_path, mode, channels):
    grey = [str(save(tmp_path / f"{i}.png")) for i in range(3)]
    path = save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), mode, colour=None)
    assert infer_shape([*grey, str(path)], None, None) == (channels, 4, 4)


def test_channels_of_arrays(tmp_path):
    np.save(tmp_path / "0.npy", np.zeros((5, 7, 13), np.uint8))
    assert infer_shape([str(tmp_path / "0.npy")], None, None) == (13, 5, 7)
    np.save(tmp_path / "1.npy", np.zeros((5, 7), np.uint8))
    assert infer_shape([str(tmp_path / "1.npy")], None, None) == (1, 5, 7)


def test_shape_of_unreadable_images_is_refused(tmp_path):
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"0\.png: neither this nor any other of 1 sampled images"):
        infer_shape([str(tmp_path / "0.png")], None, None)


@pytest.mark.parametrize("size", [0, [4], [4, -1], [4.0, 4], [1, 2, 3]])
def test_wrong_image_sizes_are_refused(size):
    with pytest.raises(ValueError, match="image_size: expected pixels as n or"):
        height_width(size)


@pytest.mark.parametrize("channels", [0, "3", 1.5])
def test_wrong_channels_are_refused(channels):
    with pytest.raises(ValueError, match="channels: expected a whole number of at least 1"):
        infer_shape([], 4, channels)


def value(path: Path, channels: int) -> list[int]:
    """The pixel of an image of one colour."""
    found = attempt(str(path), (channels, 4, 4))
    assert isinstance(found, np.ndarray), found
    assert found.shape == (channels, 4, 4)
    assert found.dtype == np.uint8
    assert (found == found[:, :1, :1]).all()
    return found[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "rgb"),
    [
        ("1", 1, "png", [255, 255, 255]),
        ("L", 9, "png", [9, 9, 9]),
        ("LA", (9, 0), "png", [9, 9, 9]),  # alpha is dropped, not blended
        ("RGB", (1, 2, 3), "png", [1, 2, 3]),
        ("RGBA", (1, 2, 3, 0), "png", [1, 2, 3]),
        ("CMYK", (0, 255, 255, 0), "tif", [255, 0, 0]),
        ("I;16", 65535, "png", [255, 255, 255]),
        ("I;16", 256, "png", [1, 1, 1]),  # 256 * 255 / 65535 = 0.996
        ("I;16", 127, "png", [0, 0, 0]),  # 0.494
        ("I;16", 129, "tif", [1, 1, 1]),  # 0.502
    ],
)
def test_each_mode_becomes_rgb(tmp_path, mode, colour, suffix, rgb):
    path = save(tmp_path / f"x.{suffix}", mode, colour=colour)
    with Image.open(path) as image:
        assert image.mode == mode
    assert value(path, 3) == rgb


def test_grey_modes_stay_one_channel_and_colour_becomes_luminance(tmp_path):
    assert value(save(tmp_path / "l.png", "L", colour=9), 1) == [9]
    assert value(save(tmp_path / "i.png", "I;16", colour=65535), 1) == [255]
    assert value(save(tmp_path / "rgb.png", "RGB", colour=RED), 1) == [76]  # 254 * 0.299


def test_palettes_also_with_a_transparent_colour_become_their_rgb(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 1, 2, 3])
    image.save(tmp_path / "p.png")
    image.save(tmp_path / "t.png", transparency=bytes([0, 128]))
    assert value(tmp_path / "p.png", 3) == [1, 2, 3]
    assert value(tmp_path / "t.png", 3) == [1, 2, 3]


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = Image.fromarray(np.array([[10, 20, 30], [40, 50, 60]], np.uint8))
    image.save(tmp_path / "x.png", exif=exif)
    found = attempt(str(tmp_path / "x.png"), (1, 3, 2))
    assert found[0].tolist() == [[40, 10], [50, 20], [60, 30]]


def test_other_sizes_are_resized(tmp_path):
    image = Image.fromarray(np.array([[0, 0, 100, 100]] * 4, np.uint8))
    image.save(tmp_path / "x.png")
    found = attempt(
        str(tmp_path / "x.png"), (1, 2, 2)
    )  # weights 3/8, 3/8, 1/8 at the border: / (7/8)
    assert found[0].tolist() == [[14, 86], [14, 86]]
    assert value(save(tmp_path / "huge.png", "RGB", (400, 300), RED), 3) == list(RED)


def test_arrays_of_any_number_of_channels_also_resized(tmp_path):
    array = np.arange(4 * 4 * 2, dtype=np.uint8).reshape(4, 4, 2)
    np.save(tmp_path / "x.npy", array)
    assert (attempt(str(tmp_path / "x.npy"), (2, 4, 4)) == array.transpose(2, 0, 1)).all()
    np.save(tmp_path / "y.npy", np.full((9, 7, 13), 5, np.uint8))
    assert value(tmp_path / "y.npy", 13) == [5] * 13


@pytest.mark.parametrize(
    ("array", "channels", "reason"),
    [
        (np.zeros((4, 4, 5), np.uint8), 13, r"x.npy \(5 channels, expected 13\)"),
        (np.full((4, 4, 1), np.nan), 1, r"float64 of shape \(4, 4, 1\), expected uint8"),
        (np.zeros(4, np.uint8), 1, r"uint8 of shape \(4,\), expected uint8 \(H, W, C\)"),
        (np.array([{}], dtype=object), 1, "allow_pickle=False"),
    ],
)
def test_arrays_that_do_not_fit_say_why(tmp_path, array, channels, reason):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    found = attempt(str(tmp_path / "x.npy"), (channels, 4, 4))
    assert isinstance(found, str)
    assert re.search(reason, found), found


def noise(kind: str) -> bytes:
    stream = io.BytesIO()
    colours = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(colours).save(stream, kind)
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG header that promises so many grey pixels, and one row of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(width + 1)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


DAMAGED = {
    "truncated.jpg": (noise("JPEG")[:-200], "truncated"),
    "empty.jpg": (b"", "not an image"),
    "text.jpg": (b"I am a letter", "not an image"),
    "garbage.jpg": (b"\xff" * 1000, "not an image"),
    "truncated.png": (noise("PNG")[:-2000], "truncated"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "not an image"),
    "bomb.png": (bomb(60000, 60000), "decompression bomb"),
    "small_bomb.png": (bomb(10000, 10000), "decompression bomb"),
    "empty.npy": (b"", "No data left in file"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_with_their_path(tree, name):
    content, reason = DAMAGED[name]
    (tree / "train" / "dog" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"1 of 6 images cannot be read: .*/dog/{name} ") as caught:
        read(tree, (3, 4, 4))
    assert reason in str(caught.value)
    assert "set data.on_error=skip" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_floating_point_images_are_refused(tmp_path):
    save(tmp_path / "x.tif", "F", colour=0.5)
    assert "floating-point pixels; save it with 8 or 16 bits" in attempt(
        str(tmp_path / "x.tif"), (1, 4, 4)
    )


@pytest.mark.parametrize("memory_mb", [200, 0])
def test_all_damaged_files_are_counted_and_ten_are_named(tree, memory_mb):
    for i in range(12):
        (tree / "train" / "dog" / f"bad{i:02d}.png").write_bytes(b"")
    with pytest.raises(DataError, match="12 of 17 images cannot be read") as caught:
        read(tree, memory_mb=memory_mb)
    assert str(caught.value).count("bad") == 10
    assert "bad09.png (not an image), ...; expected all readable" in str(caught.value)


def test_skipping_more_than_one_in_a_hundred_is_refused(tree):
    (tree / "train" / "dog" / "bad.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1 of 6 .*bad\.png \(not an image\); .*\(skip allows 1%\)"
    ):
        read(tree, on_error="skip")


@pytest.mark.parametrize("memory_mb", [200, 0])
def test_one_in_a_hundred_is_skipped_and_said(tree, memory_mb, caplog):
    for i in range(94):
        save(tree / "train" / "cat" / f"more{i}.png")
    (tree / "train" / "dog" / "0bad.png").write_bytes(b"")
    images, kept = read(tree, memory_mb=memory_mb, on_error="skip")
    assert len(kept) == len(images.labels) == 99
    assert images.labels[-2:].tolist() == [1, 1]
    assert torch.bincount(images.labels).tolist() == [97, 2]
    assert pixels(images)[-2:, 0, 0, 0].tolist() == [0, 10]
    assert images.counts.sum() == 99 * 16
    assert "0bad.png (not an image)" in caplog.text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"on_error": "ignore"}, r"^on_error: expected one of abort, skip, found 'ignore'"),
        ({"workers": -1}, r"^workers: expected a whole number of at least 0, found -1"),
    ],
)
def test_wrong_settings_are_refused(tree, setting, message):
    with pytest.raises(ValueError, match=message):
        read(tree, **setting)


def test_images_are_kept_in_memory_up_to_the_limit_and_on_disk_beyond(tree):
    bytes_decoded = 5 * 16
    assert not isinstance(read(tree, memory_mb=bytes_decoded / 1e6)[0], ImageFiles)
    assert isinstance(read(tree, memory_mb=(bytes_decoded - 1) / 1e6)[0], ImageFiles)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_on_disk_equal_those_in_memory(tree, workers):
    memory, disk = read(tree)[0], read(tree, memory_mb=0, workers=workers)[0]
    order = [torch.tensor([4, 0]), torch.tensor([2])]
    state = torch.get_rng_state()
    found = list(disk.batches(order))
    assert torch.equal(state, torch.get_rng_state())
    for (x, y), (x_memory, y_memory) in zip(found, memory.batches(order), strict=True):
        assert torch.equal(x, x_memory)
        assert torch.equal(y, y_memory)
    assert found[0][0][:, 0, 0, 0].tolist() == [10, 0]
    assert found[0][1].tolist() == [1, 0]
    assert torch.equal(memory.counts, disk.counts)
    assert memory.shape == disk.shape == (1, 4, 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_later_stops_the_epoch_in_one_line(tree, workers):
    disk = read(tree, memory_mb=0, workers=workers)[0]
    (tree / "train" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cat/0\.png \(not an image\): readable before") as caught:
        pixels(disk)
    assert "\n" not in str(caught.value)


def test_the_test_part_is_not_opened_by_reading_train(tree):
    for path in (tree / "test").rglob("*.png"):
        path.write_bytes(b"not an image")
    read(tree)
    with pytest.raises(DataError, match="2 of 2 images cannot be read"):
        read(tree, part="test")
