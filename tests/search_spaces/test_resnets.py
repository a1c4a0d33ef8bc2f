import pytest

from search_spaces.architecture import Architecture
from search_spaces.resnets import ResNetSpace, exits_of, tas

SHARES = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
SIZES = dict(depth=20, channels=16, widths=SHARES, input_shape=(3, 32, 32), classes=10)


def made(**changes) -> ResNetSpace:
    return tas(**SIZES | changes)


def test_tas_widths_are_those_of_the_public_code():
    space = made()
    assert space.widths[0] == (4, 6, 8, 9, 11, 12, 14, 16)
    assert space.widths[2] == (19, 25, 32, 38, 44, 51, 57, 64)
    assert len(space.width.rows) == 19
    assert space.width.rows[0].names == tuple(f"width_{share}" for share in SHARES)


def test_tas_depths_are_odd_numbers_and_all_blocks():
    assert [exits_of(n) for n in (1, 2, 3, 5, 6, 9)] == [
        [1], [1, 2], [1, 2, 3], [1, 3, 5], [1, 3, 5, 6], [1, 3, 5, 7, 9],
    ]  # fmt: skip
    assert [row.names for row in made().depth.rows] == 3 * [("depth_1", "depth_2", "depth_3")]


def test_of_equal_widths_the_largest_share_is_offered():
    space = made(channels=4)
    assert space.widths[0] == (1, 2, 3, 4)
    assert space.width.rows[0].names == ("width_0.4", "width_0.7", "width_0.9", "width_1.0")


def test_a_file_holds_the_space_and_one_option_of_every_row(tmp_path):
    space = made()
    full = Architecture.of(space, space.unpruned)
    full.save(tmp_path / "found.json")
    again = Architecture.load(tmp_path / "found.json")
    settings = {key: value for key, value in again.space.items() if key != "name"}
    again.check(space.family(**settings))
    two = {**space.unpruned["depth"], "0-1": ["depth_1", "depth_2"]}
    with pytest.raises(ValueError, match="'depth' keeps 2 options in row 0-1, expected one"):
        Architecture.of(space, {**space.unpruned, "depth": two})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 21}, r"depth: expected 6 n \+ 2, such as 20 or 32, found 21"),
        ({"depth": 2}, "depth: expected a whole number"),
        ({"widths": [0.5]}, r"widths: expected shares that rise to 1, found \[0.5\]"),
        ({"widths": [0.5, 0.3, 1]}, "widths: expected shares that rise to 1"),
        ({"widths": []}, "widths: expected shares that rise to 1"),
    ],
)
def test_a_wrong_size_is_one_line(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        made(**changes)
