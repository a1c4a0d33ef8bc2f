import pytest

from search_spaces.cells import Cell, Edge, complete_edges
from search_spaces.choice import Choice, Option


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none", "zero"),
        ("skip_connect", "identity"),
        ("avg_pool_3x3", "pool"),
        ("dil_conv_5x5", "conv"),
        ("nor_conv_1x1", "conv"),
        ("skip_attention", "op"),  # names are not searched for words
    ],
)
def test_the_kind_of_an_option(name: str, kind: str):
    assert Option.of(name).kind == kind


def test_a_space_may_declare_the_kind_of_its_own_option():
    (edge,) = complete_edges(1, 1, [Option("nothing", "zero"), "mine"])
    assert [option.kind for option in edge.options] == ["zero", "op"]
    assert edge.names == ("nothing", "mine")


@pytest.fixture
def choice() -> Choice:
    """States 0 and 1 are inputs; rows 0-2 and 1-2 enter 2, row 0-3 and 2-3 enter 3."""
    rows = [(0, 2, ["none", "a", "b"]), (1, 2, ["a"]), (0, 3, ["a", "none"]), (2, 3, ["b"])]
    edges = tuple(Edge(j, i, tuple(map(Option.of, names))) for j, i, names in rows)
    return Cell(2, 2, edges, keep=1)


def test_rows_into_and_out_of_a_state(choice: Choice):
    assert list(choice.targets) == [2, 3]
    assert choice.into(2) == [0, 1]
    assert choice.into(3) == [2, 3]
    assert choice.out_of(0) == [0, 2]


def test_padding_is_no_option_and_a_zero_only_where_asked_for(choice: Choice):
    assert choice.width == 3
    assert choice.offers(zero=True) == [
        [True, True, True], [True, False, False], [True, True, False], [True, False, False]
    ]  # fmt: skip
    assert choice.offers(zero=False)[0] == [False, True, True]
    assert choice.offers(zero=False)[2] == [True, False, False]


def test_connected_by_the_kept_rows():
    cell = Cell(1, 3, complete_edges(1, 3, ["skip_connect"]), keep=None, output="last")
    assert cell.connects({"0-1", "1-3"})
    assert not cell.connects({"0-1", "2-3"})
    assert not cell.connects({"0-1"})  # does not reach the last node
