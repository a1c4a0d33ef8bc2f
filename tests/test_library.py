"""Archsmith as a library: the README's example as it stands, and what `find` refuses."""

import re
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch.utils.data import TensorDataset

import archsmith as library
from archsmith.errors import ConfigError
from search_spaces.architecture import Architecture

ROOT = Path(__file__).resolve().parents[1]


IMAGES = TensorDataset(torch.rand(40, 3, 8, 8), torch.arange(40) % 2)


def readme_example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return code


def test_the_example_of_the_readme_is_short():
    assert len([line for line in readme_example().splitlines() if line.strip()]) <= 20


@pytest.mark.slow
def test_the_example_of_the_readme(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = readme_example()
    found: dict = {}
    exec(compile(textwrap.dedent(code), "README.md", "exec"), found)
    chosen = {name for edge in found["cells"].choices["normal"].values() for name in edge}
    assert chosen <= {"blur", "skip_connect", "sep_conv_3x3"}
    assert found["net"](torch.rand(2, 3, 16, 16)).shape == (2, 4)
    assert all(cell.form is None for cell in found["net"].net.layers)  # what leaves is plain torch
    assert (tmp_path / "outputs" / "notebook" / "report.html").is_file()


@pytest.mark.slow
def test_what_find_returns(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [
        "space.layers=3", "space.nodes=1", "space.channels=4", "search.epochs=2",
        "search.batch_size=8", "retrain.epochs=3", "retrain.layers=3", "retrain.channels=4",
        "space.candidates=[skip_connect,sep_conv_3x3]", "strategy.warmup=0", "device=cpu",
    ]  # fmt: skip
    found = library.find(IMAGES, IMAGES, overrides=settings)
    net, architecture = found
    assert (net, architecture) == (found.net, found.architecture)
    assert found.folder == Path("outputs/notebook")
    images = IMAGES.tensors[0]
    labels, probabilities = found.predict(images)
    right = [int(label) == int(y) for label, y in zip(labels, IMAGES.tensors[1], strict=True)]
    assert found.test_accuracy == pytest.approx(sum(right) / len(right))
    torch.testing.assert_close(probabilities, net(images).softmax(1))
    history = found.history
    assert history["phase"].tolist() == ["search"] * 2 + ["retrain"] * 3
    assert history["epoch"].tolist() == [1, 2, 1, 2, 3]
    assert history["train_loss"].notna().all()
    assert architecture == Architecture.load(found.folder / "architecture.json")
    svg = ElementTree.fromstring(architecture._repr_svg_())
    svg_name = "{http://www.w3.org/2000/svg}"
    titles = [drawing.findtext(f"{svg_name}title") for drawing in svg.iter(f"{svg_name}svg")]
    assert [title for title in titles if title] == ["normal", "reduce"]
    assert repr(found).startswith(f"Found(test accuracy {100 * found.test_accuracy:.2f}%, ")
    drawn = found._repr_html_()
    assert f"test accuracy {100 * found.test_accuracy:.2f}%" in drawn
    assert drawn.count("<svg") == 2
    folder = found.export(["standalone"])
    assert {path.name for path in folder.iterdir()} == {
        "model.py", "weights.safetensors", "export.json", "README.md",
    }  # fmt: skip
    again = library.load("outputs/notebook")
    torch.testing.assert_close(again.predict(images).probabilities, probabilities)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((4, 3, 8, 8), 3.0), "or float from 0 to 1"),
        (torch.zeros(4, 8, 8), r"item 0 is \(8, 8\)"),
    ],
)
def test_images_that_are_not_as_said_are_refused(images: torch.Tensor, message: str):
    with pytest.raises(ConfigError, match=message):
        library.find(TensorDataset(images, torch.tensor([0, 1, 0, 1])))


WRONG = [
    "search.epochs=0", "resume=bogus", "serch.epochs=3", "strategy=pcdart",
    "budget.params=none_at_all",
]  # fmt: skip
WRONG_TOO = [
    "search.epochs=many", "seed=-1", "+search.epoch=3", "space.candidates=5",
    "strategy.warmup=1.0", "export.formats=[onyx]",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "override", [*WRONG, *(pytest.param(each, marks=pytest.mark.slow) for each in WRONG_TOO)]
)
def test_a_wrong_setting_is_refused_with_the_line_of_the_command_line(
    archsmith, tmp_path: Path, monkeypatch, override: str
):
    said = archsmith("data.limit=60", override)
    (line,) = [line for line in said.err.splitlines() if line.startswith("archsmith: ")]
    with pytest.raises(ConfigError) as refused:
        library.find(IMAGES, overrides=[override])
    assert (said.code, line) == (2, f"archsmith: {refused.value}")
    assert not (tmp_path / "outputs" / "notebook").exists()


def test_an_error_of_the_users_data_set_comes_through_as_it_is(tmp_path: Path, monkeypatch):
    class Broken(TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            raise ValueError("a fault of mine")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a fault of mine"):
        library.find(Broken(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])))


def test_a_run_of_find_holds_its_settings_and_the_names_of_its_operations(
    tmp_path: Path, monkeypatch
):
    settings: dict = {}

    def noted(job, phases) -> None:
        settings.update(job.settings | {"names": job.names, "candidates": job.space.settings})
        raise ConfigError("far enough")

    monkeypatch.setattr("archsmith.library.preflight", noted)
    with pytest.raises(ConfigError, match="far enough"):
        library.find(IMAGES, operations={"blur": torch.nn.Identity}, overrides=["search.epochs=7"])
    assert (settings["operations"], settings["search"]["epochs"]) == (["blur"], 7)
    assert settings["names"] == {"strategy": "darts", "space": "darts", "data": "own"}
    assert settings["candidates"]["candidates"][-2:] == ["dil_conv_5x5", "blur"]
    assert not {"hydra", "task", "resume"} & set(settings)


def test_every_package_says_that_it_is_typed():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package in ("search_spaces", "supernets", "strategies", "archsmith"):
        assert (ROOT / package / "py.typed").is_file()
        assert "py.typed" in settings["package-data"][package]
