"""Image files named in a CSV file: columns `path` and `label`, and optionally `part`.

Paths are relative to the file's folder. Without `part` (`train`, `test` or `val`) a share of every
class becomes the test images, kept beside the file (`archsmith.data.parts`).
"""

import csv
import os
from pathlib import Path

import torch

from archsmith.data.image_tree import PassedOver, Tree, scan
from archsmith.data.names import canonical, printable
from archsmith.data.parts import PARTS, Part, with_test
from archsmith.errors import DataError

COLUMNS = "path,label, and optionally part (train, test or val)"


def scanned(root: str | None, test_share: float | None = None) -> Tree:
    """The images of `data.root`: a folder, or a CSV file that names them. Raises DataError."""
    if root is not None and root.lower().endswith(".csv") and not os.path.isdir(root):
        return scan_table(Path(root).expanduser(), test_share)
    return scan(root, test_share)


def scan_table(file: Path, test_share: float | None = None) -> Tree:
    """The classes and the parts that a CSV file names.

    Raises:
        DataError: a column or an image is missing, a part is unknown, or what `image_tree.scan`
            raises for folders.
    """
    rows = _rows(file)
    parted = any(part for _, _, part in rows)
    if parted and test_share is not None:
        raise DataError(
            f"data.test_share: {test_share}, but {file} has parts of its own; leave it out, or "
            "leave out the column part"
        )
    wanted = {part: [row for row in rows if row[2] == part] for part in PARTS if parted}
    names = {part: sorted({label for _, label, _ in some}) for part, some in wanted.items()}
    classes = names["train"] if parted else sorted({label for _, label, _ in rows})
    _check_classes(file, classes, names)
    if not parted:
        every = _part(file, rows, classes)
        kept = file.with_name(f"{file.stem}_test_images.txt")
        return Tree(tuple(classes), with_test(every, classes, kept, test_share), PassedOver())
    parts = {part: _part(file, some, classes) for part, some in wanted.items() if some}
    return Tree(tuple(classes), parts, PassedOver())


def _check_classes(file: Path, classes: list[str], parts: dict[str, list[str]]) -> None:
    """parts: part -> its classes, if the file has parts."""
    if len(classes) < 2:
        raise DataError(
            f"{file}: {len(classes)} class(es) ({', '.join(classes) or 'none'}), expected at least "
            "2; add images of another label"
        )
    for part in ("test", "val") if parts else ():
        for name in sorted(set(parts[part]) - set(classes)):
            raise DataError(
                f"{file}: label '{name}' of part {part} is unknown in train, expected one of "
                f"{', '.join(classes[:10])}; correct it, or add training images"
            )
    if parts and not parts["test"]:
        raise DataError(f"{file}: no images of part test, expected some; or leave out the column")
    absent = sorted(set(classes) - set(parts["val"])) if parts and parts["val"] else []
    if absent:
        raise DataError(
            f"{file}: no images of '{absent[0]}' in part val, expected all classes of train; add "
            "some, or make all of val training images"
        )


def _rows(file: Path) -> list[tuple[str, str, str]]:
    """Path, label and part (or "") of every image."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{file}: no column {' and '.join(sorted(missing))}, expected {COLUMNS}"
                )
            rows = [
                (row["path"] or "", canonical(row["label"] or ""), row.get("part") or "")
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({error}), expected CSV with {COLUMNS}") from error
    for line, (path, label, part) in enumerate(rows, start=2):
        if not path or not label or part not in ("", *PARTS):
            raise DataError(
                f"{file}, line {line}: path {printable(path)!r}, label {label!r}, part "
                f"{printable(part)!r}, expected {COLUMNS}"
            )
        if bool(part) != bool(rows[0][2]):
            raise DataError(f"{file}, line {line}: some images have a part, expected all or none")
    return rows


def _part(file: Path, rows: list[tuple[str, str, str]], classes: list[str]) -> Part:
    files, sizes = [], []
    for path, _, _ in rows:
        try:
            sizes.append(os.stat(file.parent / path).st_size)
        except OSError as error:
            raise DataError(
                f"{file}: {printable(path)}: {error.strerror}, expected an image, seen from "
                f"{file.parent}; correct the path, or leave it out"
            ) from error
        files.append(path)
    labels = torch.tensor([classes.index(label) for _, label, _ in rows])
    return Part(file.parent, tuple(files), labels, tuple(sizes))
