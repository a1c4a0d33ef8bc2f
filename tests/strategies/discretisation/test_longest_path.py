"""The path of the largest weight: the sheet sharpdarts.md, section 4 and test 4."""

from dataclasses import dataclass, replace
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from search_spaces.choice import Choice, Option, Row
from search_spaces.hypercuboid import hypercuboid
from search_spaces.space import Space
from strategies.discretisation.longest_path import longest_path
from strategies.discretisation.strongest import best_options, strongest
from strategies.discretisation.threshold import above_threshold
from strategies.searchers.random import drawn
from strategies.shares import every_option

WIDTHS, LAYERS = (2, 4), 3


@dataclass(frozen=True)
class Steps(Choice):
    steps: tuple[Row, ...]
    keep = 1
    inputs = 1

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.steps

    @property
    def outputs(self) -> tuple[int, ...]:
        return (len(self.steps),)


def toy() -> Steps:
    """3 layers, each from widths 2 and 4 to widths 2 and 4 by one of two operations."""
    options = tuple(
        Option(f"{op} {a}-{b}", "conv", a, b) for a, b, op in product(WIDTHS, WIDTHS, "xy")
    )
    return Steps(tuple(Row(i, i + 1, options) for i in range(LAYERS)))


def path_of(choice: Choice, gates: Tensor, rule=longest_path) -> list[str]:
    kept = rule(choice, gates, None, every_option(choice))
    return [name for row in choice.rows for name in kept[row.name]]


def weight_of(choice: Choice, gates: Tensor, path: list[str]) -> float:
    names = [row.names.index(name) for row, name in zip(choice.rows, path, strict=True)]
    return sum(float(gates[r, o]) for r, o in enumerate(names))


def test_sharpdarts_4_the_planted_chain_is_found():
    """Alphas descend the sum over the layers of a table's losses, mixed by their softmax; the table
    is best on the planted chain. One option of layer 2 is better yet, but nothing leads to it from
    the best of layer 1."""
    choice, planted = toy(), ["x 2-4", "y 4-2", "x 2-2"]
    table = torch.full((LAYERS, 8), 2.0)
    for r, name in enumerate(planted):
        table[r, choice.rows[r].names.index(name)] = 0.5
    table[1, choice.rows[1].names.index("x 2-4")] = 0.4  # a dead end
    alphas = torch.zeros(LAYERS, 8, requires_grad=True)
    for _ in range(60):
        (gradient,) = torch.autograd.grad((alphas.softmax(1) * table).sum(), alphas)
        alphas.data -= 4 * gradient
    gates = alphas.detach().softmax(1)
    assert path_of(choice, gates) == planted
    assert path_of(choice, gates, strongest) == planted
    greedy = path_of(choice, gates, best_options)
    assert greedy == ["x 2-4", "x 2-4", "x 2-2"]  # which do not fit


def test_sharpdarts_4_a_good_first_step_that_leads_to_a_dead_end_is_left():
    choice = toy()
    names = choice.rows[0].names
    gates = torch.full((LAYERS, 8), 0.01)
    gates[0, names.index("x 2-4")] = 0.6
    gates[0, names.index("x 2-2")] = 0.3
    gates[1, names.index("y 2-2")] = 0.9
    gates[2, names.index("y 2-4")] = 0.9
    assert path_of(choice, gates) == ["x 2-2", "y 2-2", "y 2-4"]


@pytest.mark.parametrize("seed", range(5))
def test_no_other_path_is_longer(seed: int):
    choice = toy()
    gates = torch.rand(LAYERS, 8, generator=torch.Generator().manual_seed(seed))
    found = path_of(choice, gates)
    names = [option.name for option in choice.rows[0].options]
    ends = dict(zip(names, ((o.begin, o.end) for o in choice.rows[0].options), strict=True))
    every = [
        list(path)
        for path in product(names, repeat=LAYERS)
        if all(ends[a][1] == ends[b][0] for a, b in pairwise(path))
    ]
    assert len(every) == 8 * 4 * 4
    assert found == max(every, key=lambda path: weight_of(choice, gates, path))


def test_a_pruned_option_is_not_on_the_path():
    choice, gates = toy(), torch.full((LAYERS, 8), 0.1)
    gates[1, 0] = 0.9
    alive = every_option(choice)
    assert longest_path(choice, gates, None, alive)["1-2"] == ("x 2-2",)
    alive[1, 0] = False
    assert longest_path(choice, gates, None, alive)["1-2"] != ("x 2-2",)
    alive[1] = False
    with pytest.raises(ValueError, match="no path of fitting options is left"):
        longest_path(choice, gates, None, alive)


def test_factors_weigh_the_rows():
    choice = toy()
    gates = torch.full((LAYERS, 8), 0.1)
    names = choice.rows[0].names
    gates[0, names.index("x 2-4")] = 0.3
    gates[1, names.index("x 2-2")] = 0.4
    even, first = torch.ones(LAYERS), torch.tensor([3.0, 1.0, 1.0])
    alive = every_option(choice)
    assert longest_path(choice, gates, even, alive)["1-2"] == ("x 2-2",)
    assert longest_path(choice, gates, first, alive)["0-1"] == ("x 2-4",)


def test_options_that_fit_everything_are_chosen_row_by_row():
    rows = tuple(
        replace(row, options=tuple(Option(o.name) for o in row.options)) for row in toy().rows
    )
    choice, gates = Steps(rows), torch.rand(LAYERS, 8)
    assert not choice.linked
    assert path_of(choice, gates) == path_of(choice, gates, best_options)


def test_rows_that_compete_are_one_line(toy_darts: Space):
    choice = toy_darts.choices["normal"]
    with pytest.raises(ValueError, match="expected rows one after the other"):
        longest_path(choice, torch.rand(5, 8), None, every_option(choice))


def test_a_threshold_cuts_no_path():
    choice, gates = toy(), torch.rand(LAYERS, 8)
    assert above_threshold(
        choice, gates, None, every_option(choice), threshold=0.99
    ) == longest_path(choice, gates, None, every_option(choice))


def test_random_draws_are_paths():
    space = hypercuboid(
        layers=4, channels=4, widths=3, candidates=["max_pool_3x3", "sep_conv_3x3"],
        head_channels=8, input_shape=(3, 8, 8), classes=3,
    )  # fmt: skip
    (choice,) = space.choices.values()
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(50):
        kept = drawn(choice, generator)
        options = [
            next(o for o in row.options if o.name == kept[row.name][0]) for row in choice.rows
        ]
        assert all(b.follows(a) for a, b in pairwise(options))
        seen.add(tuple(option.name for option in options))
    assert len(seen) > 40


def rows_of(*rows: list[Option]) -> Steps:
    return Steps(tuple(Row(i, i + 1, tuple(options)) for i, options in enumerate(rows)))


def test_an_option_that_fits_several_goes_on_from_the_path_of_the_largest_weight():
    choice = rows_of(
        [Option("a", "conv", None, 2), Option("b", "conv", None, 4)], [Option("c", "conv")]
    )
    for gates, path in (([0.2, 0.7], ["b", "c"]), ([0.7, 0.2], ["a", "c"])):
        table = torch.tensor([gates, [0.5, 0.0]])
        assert path_of(choice, table) == path


def test_a_path_of_weight_zero_is_a_path():
    """What does not fit its end is no way on."""
    second = [Option("x 4-2", "conv", 4, 2), Option("x 2-2", "conv", 2, 2)]
    choice = rows_of([Option("a", "conv", None, 2)], second)
    assert path_of(choice, torch.tensor([[0.0, 0.0], [1.0, 0.1]])) == ["a", "x 2-2"]
