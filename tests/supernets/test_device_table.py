"""Tables of whole architectures by device: an additive model, exact look-ups, refusals."""

import lzma
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from latencies import OPTIONS, every, parallel, shared, small, sums, written
from test_every_config import composed, make

from search_spaces.architecture import Architecture
from search_spaces.nasbench201 import CANDIDATES
from search_spaces.space import Space
from strategies.losses.latency import Latency
from supernets.device_cost import device_cost, device_costs
from supernets.latency_table import fixed_site
from supernets.mixture import GroupMixture, Mixture
from supernets.network import supernet


def test_a_sum_is_found_exactly(tmp_path: Path):
    """Against an edge of none: skips cost nothing, a convolution 1 ms, on edge 0-1 1.5 ms."""
    space = small(OPTIONS)
    found = device_costs(space, str(written(tmp_path / "t.csv", space)))
    assert list(found) == ["phone", "watch"]
    phone, watch = found.values()
    table = phone.options.tables["cell"]
    assert phone.options.fixed == pytest.approx(2.0)
    assert table[0].tolist() == pytest.approx([0.0, 0.0, 1.5], abs=1e-9)
    assert table[1:].flatten().tolist() == pytest.approx([0.0, 0.0, 1.0] * 5, abs=1e-9)
    assert phone.r2 == pytest.approx(1.0)
    assert 0 < watch.r2 < 0.9
    for one in every(space)[::50]:
        assert (phone.exact(one), watch.exact(one)) == (sums(one), parallel(one))


def test_the_expected_latency_is_the_average_over_all_architectures(tmp_path: Path):
    """Of those that gates draw, row by row; by the fitted sum, which the loss descends."""
    space = small(OPTIONS)
    config = composed(
        "strategy=darts", "strategy/losses=[latency]", "strategy.losses.latency.device=watch",
        f"budget.latency_table={written(tmp_path / 't.csv', space)}",
    ).strategy  # fmt: skip
    strategy = make(config, space=space)
    strategy.setup(supernet(space, strategy.mixed_op), torch.device("cpu"))
    term = strategy.losses["latency"]
    assert isinstance(term, Latency)
    gates = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    mixture = Mixture({"cell": GroupMixture(gates, None, [[0, 1, 2]] * 6)})
    rows = space.choices["cell"].rows
    average = 0.0
    for one in every(space):
        kept = one.choices["cell"]
        positions = [row.names.index(kept.get(row.name, ("none",))[0]) for row in rows]
        chance = math.prod(float(gates[r, o]) for r, o in enumerate(positions))
        average += chance * term.cost.options.of(one, space)
    assert term.expected(mixture).item() == pytest.approx(average, rel=1e-5)
    found = strategy.architecture()
    assert strategy.costs_of(found)["latency_ms"] == parallel(found)
    modelled = term.cost.options.of(found, space)
    assert strategy.costs_of(found)["modelled_latency_ms"] == modelled


def test_a_compressed_table_is_read(tmp_path: Path):
    space = small()
    text = written(tmp_path / "t.csv", space).read_bytes()
    path = tmp_path / "t.csv.xz"
    path.write_bytes(lzma.compress(text))
    one = every(space)[5]
    assert device_cost(space, str(path), "phone").exact(one) == sums(one)


def darts_like() -> Space:
    return make(composed("space=darts").space, input_shape=(3, 8, 8), classes=2)


@pytest.mark.parametrize(
    ("device", "space", "lacking", "message"),
    [
        ("phome", small(), 0, r"^device: 'phome' is no column .*, did you mean 'phone'\?; known"),
        (None, small(), 0, r"^device: .* has several, name one of phone, watch"),
        ("phone", small(), 1, r"does not hold \|skip_connect~0\|\+.*expected every architecture"),
        ("phone", darts_like(), 0, r"^table: .* whole architectures of nasbench201, .* darts"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, device, space: Space, lacking, message: str):
    path = written(tmp_path / "t.csv", small(), lacking)
    with pytest.raises(ValueError, match=message):
        device_cost(space, str(path), device)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture,phone\n|a~0|,fast\n", "could not convert"),
        ("architecture,phone\n|a~0|,-1\n", "no finite numbers of at least 0"),
        ("architecture,phone\n|a~0|,nan\n", "no finite numbers of at least 0"),
        ("architecture,phone\n|a~0|\n", "different lengths"),
        ("architecture\n", "different lengths, or none"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"is no table of latencies by device .*{message}"):
        device_cost(small(), str(path), "phone")


def test_a_file_that_is_not_compressed_is_refused(tmp_path: Path):
    path = tmp_path / "t.csv.xz"
    path.write_text("architecture,phone\n")
    with pytest.raises(ValueError, match=r"is no table of latencies by device \(LZMAError"):
        device_cost(small(), str(path), "phone")


def test_a_device_of_a_table_of_options_is_refused(tmp_path: Path):
    assert fixed_site(small()).option == "fixed parts"
    with pytest.raises(ValueError, match=r"^device: phone: only a table of whole architectures"):
        device_cost(small(), None, "phone")


def test_an_architecture_of_another_space_is_not_looked_up(tmp_path: Path):
    space = small()
    cost = device_cost(space, str(written(tmp_path / "t.csv", space)), "phone")
    other = small(OPTIONS)
    one = Architecture.of(other, {"cell": {}})
    with pytest.raises(ValueError, match=r"does not hold \|none~0\|"):
        cost.exact(one)


def test_the_models_of_22_devices():
    """R2 as found when the table was made: exact on some devices, not on phones."""
    path = shared("nb201_latency.csv.xz")
    found = device_costs(small(tuple(CANDIDATES)), str(path))
    r2 = {name: cost.r2 for name, cost in found.items()}
    assert len(r2) == 22
    assert min(r2, key=r2.__getitem__) == "samsung_s7"
    assert r2["samsung_s7"] == pytest.approx(0.798, abs=1e-3)
    assert np.mean([r2["eyeriss"], r2["1080ti_256"]]) > 0.999
