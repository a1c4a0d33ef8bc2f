"""An architecture that a notebook draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from archsmith.drawing.cells import cell_svg
from search_spaces.architecture import Architecture
from search_spaces.choice import Choice

SVG = "http://www.w3.org/2000/svg"
GAP = 12  # between two cells, in pixels


@dataclass(frozen=True, eq=False)
class DrawnArchitecture(Architecture):
    """An architecture with the choices of its space; equal to the same one without them."""

    tables: Mapping[str, Choice] = field(default_factory=dict, repr=False)

    @classmethod
    def of_choices(
        cls, architecture: Architecture, tables: Mapping[str, Choice]
    ) -> "DrawnArchitecture":
        return cls(architecture.space, architecture.choices, architecture.meta, tables)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Architecture):
            return NotImplemented
        return (self.space, self.choices) == (other.space, other.choices)

    __hash__ = Architecture.__hash__

    def _repr_svg_(self) -> str:
        """The cells, one below the other."""
        return stacked(
            [cell_svg(cell, self.choices[name], name) for name, cell in self.tables.items()]
        )


def stacked(drawings: Sequence[str]) -> str:
    """Drawings (SVG with width and height in pixels) as one, one below the other."""
    ElementTree.register_namespace("", SVG)
    parts = [ElementTree.fromstring(drawing) for drawing in drawings]
    height, width = 0.0, max((float(part.attrib["width"]) for part in parts), default=0.0)
    for part in parts:
        part.attrib.pop("style", None)  # of a drawing that is alone on a page
        part.set("y", f"{height:g}")
        height += float(part.attrib["height"]) + GAP
    size = {"width": f"{width:g}", "height": f"{max(height - GAP, 0):g}"}
    whole = ElementTree.Element(f"{{{SVG}}}svg", size)
    whole.set("viewBox", f"0 0 {size['width']} {size['height']}")
    whole.set("style", "max-width:100%;height:auto")
    whole.extend(parts)
    return ElementTree.tostring(whole, encoding="unicode")
