"""An architecture laid out on other layers: on a deeper network, or with a cell for each layer.

Source: the public code of Heuillet et al. 2021, arXiv:2108.09306 (D-DARTS); the text of the paper
could not be read. The rule is the one that the code intends: for the layers before the first
reduction it divides where it means a remainder, so that deep networks get a reduction cell at the
place of a normal one.
"""

from collections.abc import Sequence

from search_spaces.architecture import Architecture
from search_spaces.cells import CellSpace, Layer
from search_spaces.space import Space

SHAPES = ("name", "input_shape", "classes")  # do not change what a layer keeps


def laid_out(architecture: Architecture, space: Space) -> Architecture:
    """The architecture on the layers of `space`, of the same family with equal cells.

    A cell that is shared goes to all layers of its kind; cells of single layers are repeated
    (`sources`). Choices that are those of the space already are left as they are.

    Raises:
        ValueError: another family, other nodes or candidates, layers that share a choice but not
            their cells, or as `sources`.
    """
    if set(architecture.choices) == set(space.choices) or not isinstance(space, CellSpace):
        return architecture
    size = {k: v for k, v in architecture.space.items() if k not in SHAPES}
    if architecture.space["name"] != space.name or not set(size) <= set(space.settings):
        architecture.check(space)
    groups = _groups(space.resize(**size), space)
    choices: dict[str, dict[str, tuple[str, ...]]] = {}
    for layer, group in zip(space.layers, groups, strict=True):
        if layer.group is None or group is None:
            continue
        kept = dict(architecture.choices[group])
        if choices.setdefault(layer.group, kept) != kept:
            raise ValueError(
                f"architecture: layers that share the choice '{layer.group}' have different cells; "
                "set the space's share_alphas to false"
            )
    return Architecture.of(space, choices, **architecture.meta)


def _groups(found: Space, space: CellSpace) -> list[str | None]:
    """The choice of `found` that each layer of `space` takes."""
    resized = found.resize(layers=len(space.layers))
    assert isinstance(found, CellSpace)
    assert isinstance(resized, CellSpace)
    if set(resized.choices) == set(found.choices):  # they are shared: any depth has them
        return [layer.group for layer in resized.layers]
    return [found.layers[i].group for i in sources(found.layers, space.layers)]


def check_repeats(space: Space, deeper: Space) -> None:
    """Raises ValueError unless the cells of one space can be repeated on the layers of another."""
    assert isinstance(space, CellSpace)
    assert isinstance(deeper, CellSpace)
    sources(space.layers, deeper.layers)


def sources(found: Sequence[Layer], wanted: Sequence[Layer]) -> list[int]:
    """The position in `found` of the cell that each of the `wanted` layers repeats.

    Reductions split both stacks into sections. A reduction takes the cell of the same reduction;
    the i-th normal layer of a section takes the cell (i mod n) of the n in the same section.

    Raises:
        ValueError: a cell would not be used, or a section has no cell to repeat.
    """
    normal, reductions = _sections(found)
    positions: list[int] = []
    section = step = 0
    for layer in wanted:
        if layer.reduction:
            positions.append(reductions[section])
            section, step = section + 1, 0
        elif cells := normal[section]:
            positions.append(cells[step % len(cells)])
            step += 1
        else:
            raise ValueError(
                f"layers: the {len(found)} layers of the search have no normal cell "
                f"{'before' if section == 0 else 'after'} reduction {max(section, 1)}, which "
                f"{len(wanted)} layers need; search 5 layers or more, or keep their number"
            )
    if len(set(positions)) < len(found):
        raise ValueError(
            f"layers: found {len(wanted)}, but each of the {len(found)} layers of the search has "
            f"a cell of its own; set layers to null or {len(found)}, or to more, which repeats them"
        )
    return positions


def _sections(layers: Sequence[Layer]) -> tuple[list[list[int]], list[int]]:
    """The positions of normal layers, split at the reductions, and those of the reductions."""
    normal: list[list[int]] = [[]]
    reductions = []
    for i, layer in enumerate(layers):
        if layer.reduction:
            reductions.append(i)
            normal.append([])
        else:
            normal[-1].append(i)
    return normal, reductions
