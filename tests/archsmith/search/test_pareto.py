"""The series of a search: the sheet goldnas.md, section 9, tests 1 and 8."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import search
from test_every_config import composed, make
from torch.utils.flop_counter import FlopCounterMode

from archsmith.drawing.charts import undominated
from archsmith.errors import Interrupted
from archsmith.search.measure import Found
from archsmith.search.pareto import Pareto
from archsmith.search.settings import SearchSettings
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.record import Record
from search_spaces.architecture import Architecture
from search_spaces.goldnas import CANDIDATES, goldnas
from search_spaces.space import Space
from strategies.searchers.random import RandomSearch
from strategies.strategy import Strategy
from supernets.costs import parameters
from supernets.final_costs import total as total_of
from supernets.network import final_network, supernet

EPOCHS = 8
CPU = torch.device("cpu")


def toy(name: str) -> Space:
    config = composed(f"space={name}", "space.layers=3", "space.nodes=2", "space.channels=4")
    return make(config.space, input_shape=(3, 8, 8), classes=3)


def left(strategy: Strategy, architecture: Architecture) -> float:
    """The share of all candidates' multiply-accumulates that an architecture keeps."""
    costs = strategy.stopping.macs
    everything = sum(int(table.sum()) for table in costs.values())
    return total_of(architecture, strategy.space, costs) / everything


def run(folder: Path, space: Space, **more: Any) -> tuple[Strategy, Found]:
    """A search so short that lambda has to hurry."""
    torch.manual_seed(0)
    small = ["data=synthetic", "data.size=64", "data.image_size=8", "data.classes=3"]
    hurried = [
        "strategy.warmup=0", "strategy.pruning.maximum=0.99", "strategy.losses.gate_cost.mu=1",
        "strategy.pruning.gradual=0.2",
    ]  # fmt: skip
    config = composed("strategy=goldnas", "strategy.stopping.floor=0.3", *small, *hurried)
    strategy = make(config.strategy, space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, CPU)
    found = search(
        net,
        strategy,
        make(config.data).loaders(8, one_level=True, seed=0),
        SearchSettings(epochs=EPOCHS, batch_size=8),
        record=Record(folder),
        checkpoints=Checkpoints(folder / "checkpoints", "search", {}),
        meta={"strategy": "goldnas"},
        **more,
    )
    return strategy, found


def done(folder: Path) -> int:
    """Epochs of the search in `parts`."""
    return len(list((folder / "parts" / "architectures").glob("*.json")))


def counted(space: Space, architecture: Architecture) -> int:
    """Multiply-accumulates of the final network by torch's own counter."""
    net = final_network(space, architecture).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(1, *space.input_shape))
    return counter.get_total_flops() // 2


def series(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "pareto.json").read_text())["points"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["goldnas", "darts"])
def test_goldnas_8_a_search_falls_to_its_floor_and_leaves_a_series(name: str, tmp_path: Path):
    space = toy(name)
    strategy, found = run(tmp_path, space)

    files = sorted((tmp_path / "architectures").iterdir())
    assert len(files) < EPOCHS, "it stops by itself"
    assert left(strategy, found.architecture) <= 0.3
    every_epoch = [counted(space, Architecture.load(file)) for file in files]
    assert every_epoch == sorted(every_epoch, reverse=True)

    points = series(tmp_path)
    assert len(points) >= 2
    for point in points:
        kept = Architecture.load(tmp_path / point["architecture"])
        net = final_network(space, kept)
        assert counted(space, kept) == point["macs"] == kept.meta["macs"]
        assert parameters(net) == point["parameters"] == kept.meta["parameters"]
        assert kept.identity == point["identity"]
        assert net(torch.randn(2, 3, 8, 8)).shape == (2, 3)
        assert 0 <= point["discretised_accuracy"] <= 1
    sizes = [point["macs"] for point in points]
    assert sizes == sorted(set(sizes), reverse=True)
    assert Architecture.load(tmp_path / points[-1]["architecture"]) == found.architecture
    drawing = ET.fromstring((tmp_path / "pareto.svg").read_bytes())
    assert len(drawing.findall(".//{*}circle")) == 2 * len(points)


@pytest.mark.slow
def test_goldnas_1_the_model_of_costs_agrees_with_the_counter_in_every_epoch(tmp_path: Path):
    space = toy("goldnas")
    strategy, _ = run(tmp_path, space)
    costs = strategy.stopping.macs
    total = sum(int(table.sum()) for table in costs.values())
    everything = {
        group: {edge.name: edge.names for edge in cell.edges}
        for group, cell in space.groups.items()
    }
    fixed = counted(space, Architecture.of(space, everything)) - total
    for file in sorted((tmp_path / "architectures").iterdir()):
        found = Architecture.load(file)
        kept = round(left(strategy, found) * total)
        assert fixed + kept == counted(space, found)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 3])
def test_an_interrupted_search_leaves_the_same_series(parts: int, tmp_path: Path):
    space = toy("goldnas")
    strategy, found = run(tmp_path / "whole", space)
    for epochs in range(1, parts + 1):
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", space, stop=lambda epochs=epochs: done(tmp_path) == epochs)
    stale = tmp_path / "parts" / "pareto" / "99.json"  # of an epoch that is lost
    begun = (tmp_path / "parts" / "pareto.json").is_file()
    first = {"points": series(tmp_path / "parts") if begun else []}
    stale.parent.mkdir(exist_ok=True)
    stale.write_text("{}")
    lost = {"architecture": "pareto/99.json", "epoch": parts, "macs": 1, "parameters": 1}
    first["points"].append(lost | {"discretised_accuracy": 0.0})
    (tmp_path / "parts" / "pareto.json").write_text(json.dumps(first))
    resumed, again = run(tmp_path / "parts", space)

    assert again == found
    assert not stale.exists()
    for name in (
        "pareto.json",
        "pareto.svg",
        *(p["architecture"] for p in series(tmp_path / "whole")),
    ):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for ours, theirs in zip(resumed.arch_parameters(), strategy.arch_parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_a_search_that_has_stopped_by_itself_does_not_go_on(tmp_path: Path):
    space = toy("goldnas")
    strategy, found = run(tmp_path, space)
    before = {file: file.read_bytes() for file in tmp_path.glob("**/*.json*")}
    again, same = run(tmp_path, space)
    assert same.architecture == found.architecture
    assert {file: file.read_bytes() for file in tmp_path.glob("**/*.json*")} == before
    for ours, theirs in zip(again.arch_parameters(), strategy.arch_parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_strategy_without_plateaus_leaves_no_series(tmp_path: Path):
    space = toy("goldnas")
    Pareto(tmp_path, space, 0)
    assert list(tmp_path.iterdir()) == []


def test_points_that_another_beats_are_known():
    def point(macs: int, accuracy: float) -> dict[str, float]:
        return {"macs": macs, "discretised_accuracy": accuracy}

    points = [point(9, 0.9), point(8, 0.92), point(5, 0.7), point(4, 0.75)]
    assert undominated(points) == [False, True, False, True]


def test_a_series_may_be_added_to_by_hand(tmp_path: Path):
    torch.manual_seed(0)
    space = goldnas(
        layers=3, nodes=1, channels=4, candidates=list(CANDIDATES), input_shape=(1, 8, 8), classes=2
    )
    kept = RandomSearch(space).ask()
    Pareto(tmp_path, space, 0).add(kept, epoch=3, accuracy=0.5, meta={"seed": 1})
    assert Architecture.load(tmp_path / "pareto" / "00.json").meta["seed"] == 1
    assert [p["epoch"] for p in Pareto(tmp_path, space, 4).points] == [3]
    assert Pareto(tmp_path, space, 3).points == []
    assert not (tmp_path / "pareto" / "00.json").exists()
