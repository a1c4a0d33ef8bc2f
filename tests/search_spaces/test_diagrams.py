"""The graph of a model."""

from archsmith.drawing.cell_layout import arranged
from archsmith.drawing.cells import cell_svg
from search_spaces.diagrams import Diagram
from search_spaces.language import concat, layer, residual, sequence
from search_spaces.programs import modular


def links(model):
    return [(row.source, row.target, *row.names) for row in Diagram.of(model).rows]


def conv(filters):
    return layer("conv", filters=filters, kernel=3)


def test_runs_start_at_convolutions_and_poolings():
    model = sequence(
        sequence(conv(8), sequence(layer("relu"), layer("dropout", rate=0.1))),
        layer("max_pool", size=2),
        sequence(),
        conv(16),
    )
    assert links(model) == [
        (0, 1, "conv 8 3, relu, dropout 0.1"),
        (1, 2, "max_pool 2"),
        (2, 3, "conv 16 3"),
    ]
    assert [row.options[0].kind for row in Diagram.of(model).rows] == ["conv", "pool", "conv"]


def test_a_residual_has_a_way_past_and_a_concat_joins():
    model = sequence(residual(sequence(conv(8), conv(8))), concat(conv(4), sequence()))
    assert links(model) == [
        (0, 1, "conv 8 3"),
        (1, 2, "conv 8 3"),
        (0, 2, "residual"),
        (2, 3, "conv 4 3"),
        (3, 4, "concat"),
        (2, 4, "concat"),
    ]
    assert Diagram.of(model).outputs == (4,)
    assert links(residual(sequence())) == []


def test_a_program_is_drawn_as_its_network():
    space = modular(
        layers=2, channels=4, widths=[1, 2], kernels=[3], rates=[0.1], units=[1, 2],
        input_shape=(1, 8, 8), classes=3,
    )  # fmt: skip
    kept = space.program.kept((("layer[0]/kind", 1), ("layer[1]/kind", 2)))
    boxes = [box.text for box in arranged(space.program, kept).boxes if box.role == "label"]
    assert sorted(boxes) == ["conv 4 3, relu", "max_pool 2", "residual"]
    assert "conv 4 3, relu" in cell_svg(space.program, kept, "program")
