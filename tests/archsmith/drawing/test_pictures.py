"""The pictures of every epoch: as in the drawing, twice as large, what is kept outlined."""

import subprocess
import sys

import numpy as np
import pytest

from archsmith.drawing.cell_layout import arranged
from archsmith.drawing.cells import LIGHT
from archsmith.drawing.pictures import CHOSEN, DENSITY, TILE, cell_picture, gates_picture
from search_spaces.choice import Choice

KEPT = {"0-2": ("sep_conv_3x3",), "1-2": ("skip_connect",), "2-3": ("max_pool_3x3",)}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def extent(image: np.ndarray, colour: tuple[int, ...]) -> tuple[float, ...]:
    """Left, top, width and height of all that has the colour, in units of length."""
    rows, columns = np.nonzero((image == colour).all(-1))
    found = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
    return tuple(number / DENSITY for number in found)


def test_a_picture_of_a_cell_shows_the_layout_at_two_pixels_a_unit(toy_darts):
    cell: Choice = toy_darts.choices["normal"]
    layout = arranged(cell, KEPT, "normal")
    image = cell_picture(cell, KEPT, "normal")
    assert image.dtype == np.uint8
    assert image.shape == (2 * round(layout.height), 2 * round(layout.width), 3)
    for box in layout.boxes:
        if box.role != "lane":  # inside the box, left of its text
            paper = image[round(2 * box.y), round(2 * (box.x + 5))]
            assert tuple(paper) == rgb(LIGHT[box.kind][1]), box


def test_a_long_title_is_not_cut(toy_darts):
    short, long = (cell_picture(toy_darts.choices["normal"], KEPT, "x" * n) for n in (1, 200))
    assert long.shape[1] > 2 * 200 * 6 > short.shape[1]
    assert (long[:, -2 * 20 :] == 255).all()


DARK = (8, 48, 107)


def test_a_tile_is_dark_where_the_gate_is_one_and_outlined_where_it_is_kept():
    gates = {"0-1": {"a": 0.0, "b": 1.0, "c": 0.0}, "0-2": {"a": 0.5, "b": 0.5, "c": 0.0}}
    plain = gates_picture(gates, {}, "gates")
    kept = gates_picture(gates, {"0-2": ("c",)}, "gates")
    assert plain.shape == kept.shape
    dark = extent(plain, DARK)
    assert dark[2:] == pytest.approx(TILE, abs=1)
    assert not (plain == rgb(CHOSEN)).all(-1).any()
    outlined = extent(kept, rgb(CHOSEN))
    assert outlined == pytest.approx((dark[0] + TILE[0], dark[1] + TILE[1], *TILE), abs=1)


def test_an_option_has_one_column_in_all_rows():
    own = gates_picture({"0-1": {"a": 1.0, "b": 0.0}, "0-2": {"c": 0.0, "a": 1.0}}, {}, "x")
    whole = dict.fromkeys("abc", 0.0)
    assert own.shape == gates_picture({"0-1": whole, "0-2": whole}, {}, "x").shape
    assert extent(own, DARK)[2:] == pytest.approx((TILE[0], 2 * TILE[1]), abs=1)


def test_the_pictures_of_an_epoch_do_without_matplotlib():
    code = (
        "import sys; from archsmith.drawing.pictures import gates_picture; "
        "gates_picture({'0-1': {'a': 1.0}}, {}, 'x'); sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
