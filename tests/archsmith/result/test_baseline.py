"""A network made by hand at the found one's size, trained as it is and tested once."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_command_line import TINY, line_of
from test_every_config import composed, make
from torchvision.models import resnet18

from archsmith.errors import DataError, Interrupted
from archsmith.result.baseline import SIZES, HandDesigned, HandMade, RandomArchitectures
from archsmith.result.outcome import beside_random
from archsmith.result.pretrained import Pretrained
from archsmith.result.retrain import train, training_loader
from archsmith.result.weights import read_metadata
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Record
from archsmith.train.runtime import seed_everything
from search_spaces.darts import darts
from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from supernets.costs import macs, parameters
from supernets.network import final_network

CPU = torch.device("cpu")


def toy(*shape: int, classes: int = 10, stem: str = "small") -> Space:
    return darts(layers=3, nodes=1, channels=4, candidates=["skip_connect"], input_shape=shape,
                 classes=classes, stem=stem)  # fmt: skip


@pytest.mark.parametrize(
    ("network", "space", "expected"),
    [
        ("resnet18", toy(3, 224, 224, classes=1000, stem="imagenet"), (11_689_512, 1_814_073_344)),
        ("mobilenet_v3_small", toy(3, 224, 224, classes=1000, stem="imagenet"), (2_542_856, None)),
        ("resnet18", toy(3, 32, 32), (11_173_962, 555_422_720)),  # the network for CIFAR-10
    ],
)
def test_at_full_width_it_is_the_published_network(network: str, space: Space, expected):
    with torch.device("meta"):
        net = HandMade(network, space, 1.0)
    assert parameters(net) == expected[0]
    assert expected[1] in (None, macs(net))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "match", "target"),
    [
        ("resnet18", "parameters", 30_000),
        pytest.param("resnet18", "macs", 2_000_000, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", "parameters", 30_000, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", "macs", 2_000_000, marks=pytest.mark.slow),
    ],
)
def test_its_width_is_the_nearest_to_the_size_asked_for(network: str, match: str, target: int):
    space = toy(1, 8, 8, classes=3)
    with torch.device("meta"):
        net = HandDesigned(network, match).sized(space, target)
        found = SIZES[match](net)
        beside = [SIZES[match](HandMade(network, space, net.width + d / 512)) for d in (-1, 1)]
    assert abs(found / target - 1) < 0.1
    assert all(abs(found - target) <= abs(other - target) for other in beside)


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v3_small"])
def test_small_images_are_seen_at_full_resolution(network: str):
    space = toy(2, 8, 8, classes=3)
    net = HandMade(network, space, 1 / 16).eval()
    seen = []
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    norms[0].register_forward_hook(lambda _, __, y: seen.append(tuple(y.shape[2:])))
    norms[-1].register_forward_hook(lambda _, __, y: seen.append(tuple(y.shape[2:])))
    assert net(torch.zeros(4, 2, 8, 8)).shape == (4, 3)
    assert seen == [(8, 8), (1, 1)]  # three halvings, as many as there are stages left


def test_at_full_size_it_keeps_its_widths_and_has_a_name_of_its_own():
    space = toy(3, 32, 32)
    architecture = RandomSearch(space).ask()
    (rival,) = HandDesigned("resnet18", "full").rivals(
        architecture, space, lambda: architecture, auxiliary=False
    )
    with torch.device("meta"):
        small, net = final_network(space, architecture), rival.make()
    assert rival.name == "resnet18_full"
    assert parameters(net) == rival.told["parameters"] == 11_173_962
    assert rival.told["width"] == 1
    assert rival.told["ratio"] == pytest.approx(11_173_962 / parameters(small), rel=1e-4)


@pytest.mark.slow
def test_its_training_goes_on_where_it_was_stopped(tmp_path: Path):
    data = make(composed("data=synthetic", "data.size=24", "data.image_size=8").data)
    recipe = replace(make(composed().retrain), epochs=2, batch_size=8)
    space = toy(*data.input_shape, classes=len(data.classes))

    def trained(name: str, stop_after: int | None = None):
        seed_everything(0)
        net = HandDesigned("resnet18", "parameters").sized(space, 5000)
        folder, asked = tmp_path / name, iter(range(100))
        checkpoints = Checkpoints(folder / "checkpoints", "baseline_resnet18", {}, every_seconds=0)
        record = Record(folder)
        folder.mkdir(exist_ok=True)
        return train(
            net,
            training_loader(data, recipe, 0),
            recipe,
            record=record,
            checkpoints=checkpoints,
            stop=lambda: next(asked) == stop_after,
        )

    whole = trained("whole")
    with pytest.raises(Interrupted, match="baseline_resnet18: stopped and saved"):
        trained("stopped", stop_after=3)
    again = trained("stopped")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    lines = (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in lines] == ["baseline_resnet18"] * 2
    assert data.test_reads == 0


def test_an_unknown_baseline_is_refused(archsmith):
    said = archsmith(*TINY, "baseline=resnet18", "baseline.match=size")
    assert said.code == 2
    assert "baseline.match: expected one of parameters, macs, full, found 'size'" in line_of(said)


@pytest.mark.slow
def test_beside_the_found_network_in_the_same_folder(archsmith):
    tiny = [*TINY, "export.formats=[]"]
    assert archsmith(*tiny).code == 0
    (folder,) = Path("outputs").iterdir()
    before = json.loads((folder / "results.json").read_text())
    assert (before["test_reads"], before["baseline"]) == (1, None)

    said = archsmith(*tiny, "baseline=resnet18")  # adds to what is done, and repeats nothing
    assert said.code == 0, said.err
    assert "test accuracy (resnet18)" in said.out
    results = json.loads((folder / "results.json").read_text())
    told = results["baseline"]["resnet18"]
    assert results["test_reads"] == 2
    assert results["test_accuracy"] == before["test_accuracy"]
    assert told["ratio"] == pytest.approx(told["parameters"] / results["parameters"], abs=1e-4)
    about = [
        json.loads(read_metadata(folder / f"{name}.safetensors")["archsmith"])["preprocessing"]
        for name in ("baseline_resnet18", "weights")
    ]
    assert about[0] == about[1]
    assert "Beside other networks" in (folder / "report.html").read_text()

    assert archsmith(*tiny, "baseline=resnet18").code == 0
    assert json.loads((folder / "results.json").read_text()) == results
    assert archsmith(*tiny, "task=baseline", "baseline=mobilenet_v3_small").code == 0
    both = json.loads((folder / "results.json").read_text())
    assert (list(both["baseline"]), both["test_reads"]) == (["resnet18", "mobilenet_v3_small"], 3)
    said = archsmith(*tiny, "task=baseline")
    assert (said.code, "set baseline=resnet18" in line_of(said)) == (2, True)


@pytest.mark.slow
def test_random_architectures_beside_the_found_one(archsmith):
    """Two, then a third: the first two are not trained again."""
    tiny = [*TINY, "export.formats=[]", "baseline=random", "hydra.run.dir=d"]
    said = archsmith(*tiny, "baseline.count=2")
    assert said.code == 0, said.err
    two = json.loads(Path("d/results.json").read_text())
    names = [name for name in two["baseline"] if name.startswith("random_")]
    assert (names, two["test_reads"]) == (["random_0", "random_1"], 3)
    drawn = [two["baseline"][name]["drawn"] for name in names]
    assert drawn[0] != drawn[1]
    assert f"beside random architectures     {beside_random(two)}" in said.out
    assert "drawn at random" in Path("d/report.html").read_text()

    said = archsmith(*tiny, "task=baseline", "baseline.count=3")
    assert said.code == 0, said.err
    three = json.loads(Path("d/results.json").read_text())
    assert (list(three["baseline"]), three["test_reads"]) == ([*names, "random_2"], 4)
    assert {name: three["baseline"][name] for name in names} == two["baseline"]


def test_they_are_trained_as_the_found_network_is(tmp_path: Path):
    """The same architecture, trained by the phase of retraining, has the same weights."""
    space = darts(layers=3, nodes=2, channels=4, candidates=["skip_connect", "max_pool_3x3"],
                  input_shape=(3, 8, 8), classes=3)  # fmt: skip
    draw = RandomSearch(space)
    expected = [draw.ask() for _ in range(2)]
    given = iter(expected)
    first, second = RandomArchitectures(2).rivals(None, space, given.__next__, auxiliary=False)
    assert (first.name, second.name) == ("random_0", "random_1")
    assert [one.told["drawn"] for one in (first, second)] == [one.choices for one in expected]
    for one, architecture in zip((first, second), expected, strict=True):
        seed_everything(0)
        net = one.make()
        seed_everything(0)
        same = final_network(space, architecture)
        assert (one.told["parameters"], one.told["macs"]) == (parameters(same), macs(same))
        for a, b in zip(net.state_dict().values(), same.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ([], None),
        ([0.5], "found 60.00%, random 50.00% (n = 1): better than all, which a search that "
                "does not help is with chance 1/2"),
        ([0.5, 0.7], "found 60.00%, random 60.00% ± 14.14 (mean ± sd, n = 2): better than 1 of 2, "
                     "no evidence that the search helped"),
    ],
)  # fmt: skip
def test_the_sentence_by_hand(drawn: list[float], said: str | None):
    rivals = {f"random_{i}": {"drawn": {}, "test_accuracy": one} for i, one in enumerate(drawn)}
    by_hand = {"resnet18": {"test_accuracy": 0.9}}
    assert beside_random({"test_accuracy": 0.6, "baseline": rivals | by_hand}) == said
    assert beside_random({"test_accuracy": None, "baseline": rivals}) is None
    assert beside_random({"test_accuracy": 0.6, "baseline": None}) is None


@pytest.fixture
def weights_file(tmp_path: Path, monkeypatch) -> Path:
    """Where torchvision would put ResNet-18's weights, in an empty TORCH_HOME; no network."""

    def download(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    file = Pretrained("resnet18", download=False, image_size=None).file
    assert file.parent == tmp_path / "home" / "hub" / "checkpoints"
    assert re.fullmatch(r"resnet18-[0-9a-f]{8}\.pth", file.name)
    file.parent.mkdir(parents=True)
    return file


def fake(file: Path) -> dict[str, torch.Tensor]:
    """Random weights of the published network, in its file."""
    state = resnet18(num_classes=1000).state_dict()
    torch.save(state, file)
    return state


def test_pretrained_weights_are_those_of_the_file_below_a_new_last_layer(weights_file: Path):
    state = fake(weights_file)
    space = toy(3, 32, 32, classes=7)
    architecture = RandomSearch(space).ask()
    baseline = Pretrained("resnet18", download=False, image_size=None)
    (rival,) = baseline.rivals(architecture, space, lambda: architecture, auxiliary=False)
    net = rival.make()
    for name, tensor in net.net.state_dict().items():
        assert torch.equal(tensor, state[name]) != name.startswith("fc.")
    assert rival.name == "resnet18_pretrained"
    assert rival.told["parameters"] == parameters(net) == 11_689_512 - 1000 * 513 + 7 * 513
    assert (rival.told["width"], rival.told["image_size"]) == (1, [32, 32])
    assert rival.told["pretrained"] == "ResNet18_Weights.IMAGENET1K_V1"
    assert rival.told["macs"] == macs(net)
    x = torch.randn(2, 3, 32, 32)
    known = net.eval().net
    assert torch.equal(net(x), known(x))


def test_pretrained_images_are_resized_and_grey_is_repeated(weights_file: Path):
    fake(weights_file)
    space = toy(1, 8, 8, classes=3)
    (rival,) = Pretrained("resnet18", download=False, image_size=64).rivals(
        RandomSearch(space).ask(), space, lambda: None, auxiliary=False
    )
    net, seen = rival.make().eval(), []
    net.net.conv1.register_forward_hook(lambda _, x, y: seen.append((x[0], y.shape)))
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    ((x, shape),) = seen
    assert (x.shape, shape) == ((2, 3, 64, 64), (2, 64, 32, 32))  # its stem has stride 2
    assert torch.equal(x[:, 0], x[:, 2])
    assert rival.told["macs"] == macs(net)


def test_a_missing_file_is_exit_code_3_before_the_search(archsmith, weights_file: Path):
    said = archsmith(*TINY, "baseline=resnet18_pretrained", "hydra.run.dir=d")
    assert said.code == 3
    assert line_of(said) == (
        f"archsmith: baseline: no file {weights_file}; set baseline.download=true, or put "
        "torchvision's ResNet18_Weights.IMAGENET1K_V1 there ($TORCH_HOME/hub/checkpoints)"
    )
    assert not Path("d/architecture.json").exists()
    said = archsmith(*TINY, "baseline=resnet18_pretrained", "baseline.download=true")
    assert said.code == 3
    line = line_of(said)
    assert f"the download of {weights_file.name} failed (no route to host)" in line
    assert f"put the file into {weights_file.parent} by hand" in line


def test_a_file_with_other_weights_is_refused(weights_file: Path):
    baseline, space = Pretrained("resnet18", download=False, image_size=None), toy(3, 8, 8)
    torch.save({"fc.weight": torch.zeros(3, 3)}, weights_file)
    with pytest.raises(DataError, match=r"has other tensors than ResNet18_Weights.*; delete it"):
        baseline.check(space)
    weights_file.write_bytes(b"no weights")
    with pytest.raises(DataError, match=r"cannot be read \(UnpicklingError\); delete it"):
        baseline.check(space)
    with pytest.raises(ValueError, match="takes 1 or 3 channels, found 4"):
        baseline.check(toy(4, 8, 8))


@pytest.mark.slow
def test_it_is_fine_tuned_and_named_with_its_width(archsmith, weights_file: Path):
    fake(weights_file)
    command = [*TINY, "baseline=resnet18_pretrained", "export.formats=[]", "hydra.run.dir=d"]
    said = archsmith(*command)
    assert said.code == 0, said.err
    results = json.loads(Path("d/results.json").read_text())
    told = results["baseline"]["resnet18_pretrained"]
    assert results["test_reads"] == 2
    assert 0 <= told["test_accuracy"] <= 1
    accuracy = f"{100 * told['test_accuracy']:.2f}%"
    count = f"{told['parameters']:,}"
    assert f"({'resnet18_pretrained'})" in said.out
    assert f"{accuracy} (1 of its width, {count} parameters)" in said.out
    report = Path("d/report.html").read_text()
    assert "resnet18_pretrained" in report
    assert count in report
