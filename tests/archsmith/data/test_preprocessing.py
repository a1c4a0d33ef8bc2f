"""How images are prepared belongs to the trained weights (issue 11, A1)."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from test_command_line import ARCHITECTURE, TINY, image_tree
from torch import Tensor, nn

from archsmith.data.loader import Images
from archsmith.data.preprocessing import Preprocessing
from archsmith.data.roles import Data
from archsmith.data.split import Settings
from archsmith.errors import ConfigError, DataError
from archsmith.phases.final import evaluate_phase
from archsmith.phases.run import Final, Run
from archsmith.result.classifier import Classifier
from archsmith.result.export.formats import ExportedModel
from archsmith.result.network import load_final
from archsmith.result.weights import read_metadata, save_weights
from archsmith.train.evaluate import evaluate
from search_spaces.architecture import Architecture
from search_spaces.darts import darts
from search_spaces.space import Space
from supernets.network import final_network

TRAINED = Preprocessing(("cat", "dog"), (1, 2, 2), (0.5,), (0.25,))
NONE = {"crop": 0, "flip": False, "cutout": 0}


class Echo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def grey(value: int, *shape: int) -> Images:
    return Images(torch.full((4, *shape), value, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))


def data_of(train: Images, test: Images) -> Data:
    return Data("x", ["cat", "dog"], train, lambda _: test, Settings(None, 0.5, 0.5, NONE, 0))


def test_a1_what_weights_say_is_read_as_it_was():
    assert Preprocessing.of(json.loads(json.dumps(TRAINED.about()))) == TRAINED


def test_a1_a_network_is_tested_by_the_statistics_of_its_own_training_images():
    darker = data_of(grey(10, 1, 2, 2), grey(255, 1, 2, 2))
    ((x, _),) = darker.test(4, TRAINED)
    assert (x == (1 - 0.5) / 0.25).all()  # not (1 - 10 / 255) / 1


def test_test_images_of_another_size_than_the_networks_are_refused():
    with pytest.raises(DataError, match="test images of 1x3x3, expected 1x2x2, on which the net"):
        data_of(grey(10, 1, 2, 2), grey(255, 1, 3, 3)).test(4, TRAINED)


def test_a_classifier_takes_raw_images_of_both_kinds():
    classify = Classifier(Echo(), TRAINED)
    pixels = torch.tensor([0, 51, 102, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    expected = torch.tensor([[-2.0, -1.2, -0.4, 2.0]])
    torch.testing.assert_close(classify(pixels), expected)
    torch.testing.assert_close(classify(pixels / 255), expected)
    assert classify.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 1, 96, 96), r"shape \(1, 1, 96, 96\), expected \(B, 1, 2, 2\); resize them"),
        (torch.rand(1, 2, 2), r"one image as image\[None\]"),
        (torch.full((1, 1, 2, 2), 255.0), "float of 255 to 255, expected 0 to 1"),
        (torch.full((1, 1, 2, 2), -0.5), "not normalised"),
        (torch.full((1, 1, 2, 2), torch.nan), "float of nan"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.int64), "torch.int64, expected uint8"),
    ],
)
def test_a1_a_classifier_refuses_what_would_be_nonsense(images: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        Classifier(Echo(), TRAINED)(images)


@pytest.mark.parametrize(
    "change",
    [{"std": (0.0,)}, {"mean": (torch.nan,)}, {"mean": (0.5, 0.5)}, {"resize": "lanczos"},
     {"input_shape": (1, 0, 2)}],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(change: dict):
    with pytest.raises(ValueError, match="preprocessing: "):
        Preprocessing.of(TRAINED.about() | change)


@pytest.fixture
def toy() -> tuple[Space, Architecture]:
    settings = dict(layers=3, nodes=1, channels=4, candidates=["skip_connect"])
    space = darts(**settings, input_shape=(1, 8, 8), classes=2)
    return space, Architecture.of(space, {name: {"0-2": ["skip_connect"]} for name in space.groups})


def test_a_weights_file_of_before_is_still_read(toy, tmp_path: Path):
    space, architecture = toy
    data = {"name": "x", "classes": ["cat", "dog"], "mean": [0.25], "std": [0.5]}
    found = json.loads(architecture.to_json())
    about = {"architecture": found, "network": dict(space.settings), "data": data}
    path = tmp_path / "w.safetensors"
    save_weights(final_network(space, architecture), path, {"archsmith": json.dumps(about)})
    wanted = Preprocessing(("cat", "dog"), (1, 8, 8), (0.25,), (0.5,))
    assert load_final(path, *toy)[1:] == (wanted, "x")
    data["classes"].append("cow")
    save_weights(final_network(space, architecture), path, {"archsmith": json.dumps(about)})
    with pytest.raises(ConfigError, match=r"and 3 classes, found a network of .* and 2"):
        load_final(path, *toy)


def test_a1_the_graph_that_leaves_normalises_and_knows_uint8_alone(toy):
    graph = ExportedModel(Echo(), toy[1], TRAINED, {}).program.module()
    images = torch.randint(256, (3, 1, 2, 2), dtype=torch.uint8)
    torch.testing.assert_close(graph(images), ((images / 255 - 0.5) / 0.25).flatten(1))
    for wrong in (images / 255, images[:, :, :1]):
        with pytest.raises((AssertionError, RuntimeError)):
            graph(wrong)


class Stub:
    """What the phase of the final evaluation needs of a run."""

    def __init__(self, data: Data, final: Final):
        recipe = SimpleNamespace(batch_size=4)
        self.job = SimpleNamespace(
            data=data, recipe=recipe, device=torch.device("cpu"), form="reference", seed=0
        )
        self.job.folder = final.path.parent
        self.final, self.identity, self.measuring = lambda: final, dict, nullcontext
        self.finished = self.finish = lambda *_: False
        self.results = SimpleNamespace(fields={"test_reads": 0}, update=dict)

    def tested(self, net: nn.Module, preprocessing: Preprocessing) -> tuple:
        return Run.tested(self, net, preprocessing)


def test_a1_the_final_evaluation_asks_the_weights_how_to_prepare_images(
    toy, tmp_path: Path, monkeypatch
):
    path, seen = tmp_path / "w", []
    path.touch()
    trained = Preprocessing(("cat", "dog"), (1, 8, 8), (0.5,), (0.25,))
    net = final_network(*toy).eval()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stub = Stub(
        data_of(grey(10, 1, 2, 2), grey(255, 1, 8, 8)), Final(net, toy[1], trained, "x", path)
    )
    evaluate_phase(stub)
    assert (seen[0] == (1 - 0.5) / 0.25).all()


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("y", ("cat", "dog"), "trained on y, found data=x; set data=y"),
        ("x", ("cat", "cow"), r"2 classes, found 2 \(absent: 'cow'; unknown: 'dog'\); give images"),
    ],
)
def test_other_data_than_the_network_was_trained_on_are_refused(
    name, classes, message, toy, tmp_path: Path
):
    trained = Preprocessing(classes, (1, 8, 8), (0.5,), (0.25,))
    (tmp_path / "w").touch()
    final = Final(final_network(*toy), toy[1], trained, name, tmp_path / "w")
    with pytest.raises(ConfigError, match=message):
        evaluate_phase(Stub(data_of(grey(10, 1, 8, 8), grey(255, 1, 8, 8)), final))


@pytest.mark.slow
def test_a1_evaluating_on_a_copy_beside_darker_images_changes_nothing(
    archsmith, tmp_path: Path, monkeypatch
):
    """Neither the statistics nor the size of the images that lie beside the test images count."""
    image_tree(tmp_path / "photos", classes=3)
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    for path in (tmp_path / "copy" / "train").glob("*/*"):
        Image.new("RGB", (12, 12), 5).save(path)
    tests: list[Tensor] = []

    def note(net, loader, **more) -> dict[str, float]:
        tests.append(torch.cat([x for x, _ in loader]))
        return evaluate(net, loader, **more)

    monkeypatch.setattr("archsmith.phases.run.evaluate", note)
    (tmp_path / "found.json").write_text(json.dumps(ARCHITECTURE))
    tiny = [one for one in TINY if not one.startswith("data")]
    given = [*tiny, "data=folder", "data.augment={crop: 0, flip: false, cutout: 0}"]
    trained = archsmith(
        *given,
        "data.root=photos",
        "architecture=found.json",
        "hydra.run.dir=run",
        "export.formats=[]",
    )
    assert trained.code == 0, trained.err
    again = archsmith(*given, "task=evaluate", "data.root=copy", "architecture=run")
    assert again.code == 0, again.err
    assert torch.equal(*tests)
    about = json.loads(read_metadata(tmp_path / "run" / "weights.safetensors")["archsmith"])
    assert about["preprocessing"]["input_shape"] == list(tests[0].shape[1:])
