"""Image files named in a CSV file."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from archsmith.data.image_table import scan_table, scanned
from archsmith.data.sets import folder
from archsmith.errors import DataError

FOLDER = {
    "limit": None, "split": 0.5, "select": 0.1, "seed": 0,
    "augment": {"crop": 0, "flip": False, "cutout": 0},
    "image_size": None, "channels": None, "test_share": None, "on_error": "abort", "workers": 0,
    "memory_mb": 200,
}  # fmt: skip


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i in range(12):
        save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path


def written(folder: Path, *lines: str) -> Path:
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"


def test_parts_classes_and_labels_are_those_of_the_file(images: Path):
    elsewhere = images / "elsewhere.png"
    save(elsewhere)
    file = written(
        images, "label,path,part,note", "dog,pictures/0.png,train,x", "cat,pictures/1.png,train,",
        f"cat,{elsewhere},train,", 'dog,"pictures/2.png",test,', "cat,pictures/3.png,test,",
    )  # fmt: skip
    found = scanned(str(file))
    assert found.classes == ("cat", "dog")
    assert set(found.parts) == {"train", "test"}
    assert found.parts["train"].files == ("pictures/0.png", "pictures/1.png", str(elsewhere))
    assert found.parts["train"].labels.tolist() == [1, 0, 0]
    assert found.parts["train"].paths()[2] == str(elsewhere)
    assert found.parts["test"].labels.tolist() == [1, 0]
    assert all(size > 0 for size in found.parts["train"].sizes)


def test_without_parts_the_test_images_are_drawn_and_kept(images: Path):
    lines = [f"pictures/{i}.png,{'a' if i < 7 else 'b'}" for i in range(12)]
    file = written(images, "path,label", *lines)
    found = scan_table(file)
    assert torch.bincount(found.parts["test"].labels).tolist() == [1, 1]
    kept = (images / "list_test_images.txt").read_text().splitlines()
    assert kept == sorted(found.parts["test"].files)
    assert scan_table(file).parts["test"].files == found.parts["test"].files
    assert len(scan_table(file, None).parts["train"].files) == 10


def test_they_are_read_as_any_images(images: Path):
    lines = [f"pictures/{i}.png,{'a' if i < 6 else 'b'}" for i in range(12)]
    data = folder(root=str(written(images, "path,label", *lines)), **FOLDER)
    assert data.classes == ("a", "b")
    assert len(data.images) == 10


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "a,b"], "no column path, expected path,label"),
        (["path,label", "pictures/0.png,a"], r"1 class\(es\) \(a\), expected at least 2"),
        (["path,label", "pictures/0.png,"], r"line 2: path 'pictures/0.png', label ''"),
        (["path,label,part", "pictures/0.png,a,training"], "line 2: .*part 'training', expected"),
        (
            ["path,label,part", "pictures/0.png,a,train", "pictures/1.png,b,"],
            "line 3: some images have a part, expected all or none",
        ),
        (["path,label", "pictures/0.png,a", "nowhere.png,b"], "nowhere.png: No such file"),
        (
            ["path,label,part", "pictures/0.png,a,train", "pictures/1.png,b,train"],
            "no images of part test",
        ),
        (
            ["path,label,part", *(f"pictures/{i}.png,{i},train" for i in range(2)),
             "pictures/2.png,7,test"],
            "label '7' of part test is unknown in train, expected one of 0, 1",
        ),
        (
            ["path,label,part", *(f"pictures/{i}.png,{i},train" for i in range(2)),
             "pictures/2.png,0,test", "pictures/3.png,0,val"],
            "no images of '1' in part val",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(images: Path, lines: list[str], message: str):
    with pytest.raises(DataError, match=message) as refused:
        scan_table(written(images, *lines))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_csv_or_not_there_is_refused(images: Path):
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read \(.*No such file"):
        scanned(str(images / "gone.csv"))
    (images / "binary.csv").write_bytes(b"path,label\n\xff\xfe,a")
    with pytest.raises(DataError, match=r"binary\.csv: cannot be read"):
        scanned(str(images / "binary.csv"))
