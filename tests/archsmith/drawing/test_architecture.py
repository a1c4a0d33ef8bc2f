"""What a notebook draws of an architecture."""

from xml.etree import ElementTree

from archsmith.drawing.architecture import GAP, DrawnArchitecture, stacked
from search_spaces.architecture import Architecture

SQUARE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" style="height:auto">'
    "<style>.a{{fill:red}}@media(x){{.a>b{{fill:blue}}}}</style></svg>"
)


def test_drawings_stand_one_below_the_other():
    whole = ElementTree.fromstring(stacked([SQUARE.format(100, 40), SQUARE.format(80, 30)]))
    assert (whole.get("width"), whole.get("height")) == ("100", str(40 + GAP + 30))
    first, second = whole
    assert (first.get("y"), second.get("y")) == ("0", str(40 + GAP))
    assert second.get("style") is None
    assert second[0].text == ".a{fill:red}@media(x){.a>b{fill:blue}}"


def test_an_architecture_is_drawn_and_equal_to_itself_undrawn(toy_darts):
    rows = {"0-2": ("sep_conv_3x3",), "1-2": ("skip_connect",)}
    plain = Architecture.of(toy_darts, dict.fromkeys(("normal", "reduce"), rows))
    drawn = DrawnArchitecture.of_choices(plain, toy_darts.choices)
    assert drawn == plain
    assert plain == drawn
    other = Architecture.of(toy_darts, {"normal": rows, "reduce": {}})
    assert drawn != other
    assert drawn != "another"
    assert drawn.identity == plain.identity
    assert drawn.to_json() == plain.to_json()
    svg = drawn._repr_svg_()
    assert svg.count("sep_conv_3x3</text>") == 2
    assert "&lt;" not in svg
