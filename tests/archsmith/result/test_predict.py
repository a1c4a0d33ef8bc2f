"""Predicting image files: equal in Archsmith, on the command line and in every export."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import ROOT
from PIL import Image

import archsmith as library
from archsmith.errors import ConfigError, DataError
from archsmith.result.predict import image_files


def photo(kind: str, seed: int = 0, size: tuple[int, int] = (23, 17)) -> Image.Image:
    """An image of random blocks, (width, height) `size`, in the mode that `kind` names."""
    drawn = np.random.default_rng(seed).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    image = Image.fromarray(drawn[:, :, :3]).resize(size, Image.Resampling.BICUBIC)
    if kind == "16-bit":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        return Image.fromarray(grey * 257)
    mode = {"grey": "L", "RGBA": "RGBA", "CMYK": "CMYK", "palette": "P"}.get(kind, "RGB")
    image = image.convert(mode)
    if kind == "RGBA":
        image.putalpha(100)
    return image


KINDS = {"RGB": ".png", "grey": ".jpg", "RGBA": ".png", "CMYK": ".tif", "rotated": ".jpg",
         "16-bit": ".png", "palette": ".gif"}  # fmt: skip


def saved(folder: Path) -> list[Path]:
    """One file of each kind, of another size than the training images."""
    files = []
    for i, (kind, suffix) in enumerate(KINDS.items()):
        file = folder / f"{i}-{kind}{suffix}"
        more = {}
        if kind == "rotated":
            exif = Image.Exif()
            exif[0x0112] = 6  # Orientation: a quarter turn
            more["exif"] = exif
        photo(kind, i).save(file, **more)
        files.append(file)
    return files


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on a folder of photos, whose classes differ in brightness."""
    folder = tmp_path_factory.mktemp("own")
    for part in ("train", "test"):
        for name, shade in (("day", 160), ("night", 0)):
            (folder / "photos" / part / name).mkdir(parents=True)
            for i in range(8):
                drawn = np.random.default_rng(i).integers(0, 96, (12, 12, 3)) + shade
                image = Image.fromarray(drawn.astype(np.uint8))
                image.save(folder / "photos" / part / name / f"{i}.png")
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "run.py"), "data=folder", f"data.root={folder / 'photos'}",
            "data.augment.crop=0", "data.augment.flip=false", "space.layers=3", "space.nodes=1",
            "space.channels=4", "space.candidates=[skip_connect,sep_conv_3x3]", "search.epochs=2",
            "search.batch_size=4", "strategy.warmup=0", "retrain.layers=3", "retrain.channels=4",
            "retrain.epochs=4", "retrain.batch_size=4", "runtime.threads=1", "budget.params=1M",
            "baseline=none", f"hydra.run.dir={folder / 'run'}", "device=cpu",
        ],
        capture_output=True, cwd=folder, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return folder / "run"


@pytest.mark.slow
def test_a_photo_has_the_same_label_and_probabilities_everywhere(run: Path, tmp_path: Path):
    files = saved(tmp_path)
    net = library.load(run)
    assert net.classes == ("day", "night")
    expected = net.predict(files)
    assert expected.probabilities.shape == (len(files), 2)
    torch.testing.assert_close(expected.probabilities.sum(1), torch.ones(len(files)))
    assert [net.classes[i] for i in expected.probabilities.argmax(1)] == expected.labels
    for file, label in zip(files, expected.labels, strict=True):
        assert net.predict(file).labels == [label]  # one at a time

    script = run / "export" / "model.py"
    command = [sys.executable, "-I", str(script), *map(str, files)]
    alone = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert alone.returncode == 0, alone.stderr
    for line, file, label in zip(alone.stdout.splitlines(), files, expected.labels, strict=True):
        assert line.startswith(f"{file}: {label} (")

    raw = {}  # the pixels as `model.py` reads them, which needs no Archsmith
    found: dict = {"__name__": "model", "__file__": str(script)}
    exec(compile(script.read_text(), "model.py", "exec"), found)
    standalone = found["load"]()
    raw = torch.stack([found["read_image"](str(file)) for file in files])
    prepared = torch.cat([found["prepare"](image) for image in raw])
    session = onnxruntime.InferenceSession(run / "export" / "model.onnx")
    exported = torch.export.load(run / "export" / "model.pt2").module()
    with torch.inference_mode():
        logits = {
            "model.py": standalone(prepared),
            "pt2": exported(raw),
            "onnx": torch.from_numpy(
                session.run(None, {session.get_inputs()[0].name: raw.numpy()})[0]
            ),
        }
    for name, values in logits.items():
        torch.testing.assert_close(
            values.softmax(1), expected.probabilities, rtol=0, atol=1e-4, msg=name
        )

    table = tmp_path / "out.csv"
    command = [
        sys.executable, str(ROOT / "run.py"), "task=predict", f"architecture={run}",
        f"images={tmp_path}", "predict.top=5", "predict.batch_size=3", f"predict.csv={table}",
        "device=cpu",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = list(csv.DictReader(table.open()))
    assert [Path(line["file"]) for line in lines] == files
    assert [line["label"] for line in lines] == expected.labels
    for line, shares in zip(lines, expected.probabilities, strict=True):
        assert float(line["probability"]) == pytest.approx(float(shares.max()), abs=1e-4)
        assert float(line["probability_2"]) == pytest.approx(float(shares.min()), abs=1e-4)
    assert done.stdout.splitlines()[0].startswith(f"{files[0]}: {expected.labels[0]} (")
    assert not (tmp_path / "outputs").exists() or not list((tmp_path / "outputs").iterdir())


@pytest.mark.slow
def test_the_model_card_tells_the_truth_and_its_code_runs(run: Path, tmp_path: Path):
    folder, results = run / "export", json.loads((run / "results.json").read_text())
    card = (folder / "README.md").read_text()
    low, high = (f"{100 * share:.2f}%" for share in results["test_interval"])
    assert f"{100 * results['test_accuracy']:.2f}% of 16 test images" in card
    assert f"95% interval {low} to {high};" in card
    assert "the test images were read once" in card
    assert f"{results['parameters']:,} parameters" in card
    for file in ("model.py", "model.onnx", "model.pt2", "genotype.txt"):
        assert f"- `{file}` (" in card
    assert "Classes: day, night." in card
    (code,) = re.findall(r"```py\n(.*?)```", card, re.S)
    photo("RGB").save(tmp_path / "photo.jpg")
    for file in ("model.onnx", "model.py"):
        shutil.copy(folder / file, tmp_path)
    code += "print(logits.argmax())"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert said.returncode == 0, said.stderr
    net = library.load(run)
    assert [net.classes[int(said.stdout)]] == net.predict(tmp_path / "photo.jpg").labels


SNIPPETS = {"import model ": "CLASSES", "torch.export.load": "images", "onnxruntime": "classes"}


@pytest.mark.slow
@pytest.mark.parametrize("start", SNIPPETS)
def test_the_code_of_the_documentation_runs_beside_the_files(run: Path, tmp_path: Path, start: str):
    """As it stands; its images have the size of this run's."""
    page = (ROOT / "docs" / "exports.md").read_text()
    (code,) = [c for c in re.findall(r"```py\n(.*?)```", page, re.S) if start in c]
    assert SNIPPETS[start] in code
    folder = shutil.copytree(run / "export", tmp_path / "export")
    photo("RGB").save(folder / "photo.jpg")
    code = code.replace("5, 3, 16, 16", "5, 3, 12, 12") + "\nprint(tuple(logits.shape))"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=120
    )
    assert said.returncode == 0, said.stderr
    *answer, shape = said.stdout.splitlines()
    assert shape == ("(5, 2)" if start == "torch.export.load" else "(1, 2)")
    expected = library.load(run).predict(folder / "photo.jpg").labels
    assert answer == ([] if start == "torch.export.load" else expected)


def test_the_cpp_code_of_the_documentation_compiles(tmp_path: Path):
    compiler, header = shutil.which("g++"), "onnxruntime_cxx_api.h"
    page = (ROOT / "docs" / "exports.md").read_text()
    (code,) = re.findall(r"```cpp\n(.*?)```", page, re.S)
    if compiler is None:
        pytest.skip("no g++ on this machine")
    check = [compiler, "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
    include = subprocess.run(check, input=f"#include <{header}>", capture_output=True, text=True)
    if include.returncode:
        pytest.skip(f"{header} is not installed: the C++ code was not compiled")
    done = subprocess.run(check, input=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_what_cannot_be_read_is_said_and_left_out(run: Path, tmp_path: Path):
    good, bad, table = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "out.csv"
    photo("RGB").save(good)
    bad.write_text("no picture")
    with pytest.raises(DataError, match=r"b\.png \(not an image\): cannot be read"):
        library.load(run).predict([good, bad])
    command = [
        sys.executable, str(ROOT / "run.py"), "task=predict", f"architecture={run}", "device=cpu",
    ]  # fmt: skip
    both = subprocess.run(
        [*command, f"images={tmp_path}/*.png", f"predict.csv={table}"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert both.returncode == 0
    assert "1 of 2 files were not read" in both.stderr + both.stdout
    assert len(table.read_text().splitlines()) == 2
    none = subprocess.run(
        [*command, f"images={bad}"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert none.returncode == 3
    assert "none of 1 files can be read" in none.stderr


def test_files_folders_and_patterns_mean_files(tmp_path: Path):
    for name in ("b.png", "a.JPG", "notes.txt", "deep/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*names: str) -> list[str]:
        return [Path(f).name for f in image_files([str(tmp_path / name) for name in names])]

    assert found("") == ["a.JPG", "b.png", "c.webp"]
    assert found("*.png", "a.JPG", "b.png") == ["b.png", "a.JPG"]
    assert found("**/*.webp") == ["c.webp"]
    assert image_files(str(tmp_path / "notes.txt"))  # the user's own choice
    with pytest.raises(ConfigError, match=r"images: found none for '.*\*\.gif', expected a file"):
        found("*.gif")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "images: null, expected what to predict; set images="),
        (["images=a.png"], "architecture: this task needs one"),
        (
            ["images=a.png", "predict.csv=nowhere/x.csv"],
            "predict.csv: no folder for 'nowhere/x.csv'",
        ),
        (["images=a.png", "predict.top=0"], "predict.top: expected"),
        (["images=3"], "images: expected"),
    ],
)
def test_what_is_missing_is_said(archsmith, overrides: list[str], message: str):
    said = archsmith("task=predict", *overrides)
    assert said.code == 2
    assert message in said.err
    assert len(said.err.splitlines()) == 1


def test_a_run_without_a_network_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^weights: this task needs a trained network"):
        library.load("DARTS_V2")
