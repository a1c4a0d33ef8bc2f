"""The expected latency by hand, and tables on disk."""

from pathlib import Path

import pytest
import torch
from planted_lags import OPTIONS, one_block
from test_every_config import composed, make

from search_spaces.mbconv import mbconv
from search_spaces.resnets import tas
from search_spaces.space import Space
from strategies.losses.latency import Latency
from strategies.strategy import Strategy
from supernets.final_costs import Site, cost_tables, final_costs
from supernets.latency_table import fixed_site, latency_cost, written
from supernets.mixture import GroupMixture, Mixture
from supernets.network import supernet

# The first block that is searched, in ms on a Pixel 1, and the fixed parts: public code of
# arXiv:1904.02877
BLOCK = dict(zip(OPTIONS, [0.0, 4.4905, 9.2015, 5.9248, 11.5892], strict=True))
FIXED = 19.5999


def two_blocks() -> Space:
    return mbconv(
        layers=2, channels=4, widths=[1], strides=[1], ends=[1, 1], candidates=OPTIONS,
        input_shape=(3, 8, 8), classes=2,
    )  # fmt: skip


def table(space: Space, path: Path) -> Path:
    """A file with the published numbers for each block; the fixed blocks at both ends cost 1 ms."""
    seen = {fixed_site(space): FIXED}

    def cost(site: Site) -> float:
        seen[site] = BLOCK.get(site.option, 1.0)
        return seen[site]

    cost_tables(space, cost)
    path.write_text(written((site, {"median_ms": ms}) for site, ms in seen.items()))
    return path


def set_up(space: Space, *overrides: str, strategy: str = "darts") -> Strategy:
    config = composed(f"strategy={strategy}", "strategy/losses=[latency]", *overrides).strategy
    made = make(config, space=space)
    made.setup(supernet(space, made.mixed_op), torch.device("cpu"))
    return made


def term(strategy: Strategy) -> Latency:
    found = strategy.losses["latency"]
    assert isinstance(found, Latency)
    return found


def one_hot(*options: int) -> Mixture:
    """The gates of the four blocks: the ends have one option."""
    gates = torch.eye(5)[[0, *options, 0]]
    return Mixture({"blocks": GroupMixture(gates, None, [[0], [0], [0], [0]])})


def test_singlepath_4_the_expected_latency_is_exact_for_every_option(tmp_path: Path):
    """Also for 3x3 and expansion 3, 4.4905 ms, where the formula of the paper gives 4.7041 ms. The
    last fixed block is the option 3x3 and expansion 6."""
    space = two_blocks()
    latency = term(
        set_up(space, f"strategy.losses.latency.table={table(space, tmp_path / 't.csv')}")
    )
    ends = 1.0 + BLOCK["mbconv_3x3_e6"]
    for o, name in enumerate(OPTIONS):
        found = latency.expected(one_hot(o, 4)).item()
        assert found == pytest.approx(FIXED + ends + BLOCK[name] + 11.5892, abs=1e-4)


def test_singlepath_4_gates_between_0_and_1_by_hand(tmp_path: Path):
    space = two_blocks()
    path = table(space, tmp_path / "t.csv")
    latency = term(set_up(space, f"strategy.losses.latency.table={path}",
                          "strategy.losses.latency.weight=2"))  # fmt: skip
    mixture = one_hot(0, 4)
    gates = mixture.groups["blocks"].gates
    gates[1] = torch.tensor([0.5, 0.25, 0.0, 0.0, 0.25])
    total = FIXED + 1 + 9.2015 + 11.5892 + 0.25 * (4.4905 + 11.5892)
    assert latency.expected(mixture).item() == pytest.approx(total, abs=1e-4)
    x = torch.zeros(1, 2)
    found = latency(None, (x, x), x, mixture)
    assert found.item() == pytest.approx(2 * torch.tensor(total).log().item(), abs=1e-5)


def test_without_a_table_it_counts_multiply_accumulates_exactly():
    strategy = set_up(two_blocks(), strategy="gdas")
    found = strategy.architecture()
    wanted = final_costs(strategy.space)["macs"].of(found, strategy.space)
    assert strategy.costs_of(found) == {"macs": wanted}


def test_the_total_of_what_was_found_is_that_of_the_table(tmp_path: Path):
    space = two_blocks()
    strategy = set_up(space, f"strategy.losses.latency.table={table(space, tmp_path / 't.csv')}")
    found = strategy.architecture()
    kept = [found.choices["blocks"][row.name][0] for row in space.choices["blocks"].rows]
    total = FIXED + 1 + sum(BLOCK[name] for name in kept[1:])
    assert strategy.costs_of(found)["latency_ms"] == pytest.approx(total)


@pytest.mark.parametrize("changed", ["4.4905", str(FIXED)])
def test_a_search_goes_on_with_the_table_it_began_with(tmp_path: Path, changed: str):
    space, path = two_blocks(), tmp_path / "t.csv"
    given = f"strategy.losses.latency.table={table(space, path)}"
    state = set_up(space, given).state_dict()
    set_up(space, given).load_state_dict(state)
    path.write_text(path.read_text().replace(changed, "7.5"))
    with pytest.raises(ValueError, match=r"^table: .*t\.csv has other latencies than the search"):
        set_up(space, given).load_state_dict(state)


def test_it_is_off_while_alphas_do_not_move():
    strategy = set_up(two_blocks(), "strategy.warmup=0.5")
    x = torch.zeros(1, 2)
    found = []
    for epoch in range(2):
        strategy.epoch_start(epoch, 2)
        found.append(term(strategy)(None, (x, x), x, one_hot(1, 4)).item())
    assert found[0] == 0 < abs(found[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("median_ms", "ms"), r"^losses\.latency\.table: .* is no table"),
        (lambda text: text.replace("4.4905", "nan"), r"expected milliseconds of at least 0, found"),
        (lambda text: text.replace("4.4905", "-1"), r"expected milliseconds of at least 0, found"),
        (lambda text: text.replace("4.4905", "fast"), r"is no table of latencies"),
        (lambda text: text.replace("mbconv_5x5_e3", "other"),
         r"has no line of 'mbconv_5x5_e3' from 4 to 4 channels, stride 1, on 8x8; measure"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_one_line(tmp_path: Path, change, message: str):
    space = two_blocks()
    path = table(space, tmp_path / "t.csv")
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        set_up(space, f"strategy.losses.latency.table={path}")


def test_a_missing_table_is_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none\.csv is no table of latencies .FileNotFoundError"):
        latency_cost(one_block(), tmp_path / "none.csv")


@pytest.mark.parametrize("file", [None, "missing.csv"])
def test_a_space_whose_options_have_no_costs_of_their_own_is_refused(file: str | None):
    given = {} if file is None else {"table": file}
    overrides = [f"strategy.losses.latency.{name}={value}" for name, value in given.items()]
    space = tas(depth=8, channels=4, widths=[0.5, 1], input_shape=(1, 8, 8), classes=2)
    with pytest.raises(ValueError, match=r"losses\.latency: costs of options .* in space tas, "):
        set_up(space, *overrides)
