"""Writes `model.py`: a final network as one readable file that needs only torch.

The network is data; the modules that read it are copied as they are.
"""

import functools
from collections.abc import Mapping
from string import Template
from typing import Any

from archsmith.result.export import usage
from archsmith.result.export.definitions import Definitions, UnportableError
from archsmith.result.export.literals import Code, literal, packed
from search_spaces.architecture import Architecture
from search_spaces.cells import CellSpace
from supernets.final import FinalNetwork, Layout
from supernets.network import layout, skeleton

FACTS = ("INPUT_SHAPE", "CLASSES", "MEAN", "STD", "RESIZE", "PARAMETERS", "MACS")
HEAD = '''\
"""Architecture $identity of the $space space, found with Archsmith.

It needs torch, and its weights beside it:

    import model

    net = model.load()
    logits = net(model.prepare(image))  # image (C, H, W), uint8 of 0..255 or float of 0..1

`prepare` normalises; it refuses an image of another size, type or range than the network knows.

In a shell, `python model.py` prints its size and `python model.py image.npy` the class of an image.
"""

$imports

INPUT_SHAPE = $input_shape  # channels, height, width
CLASSES = $classes
MEAN = $mean  # of each channel, for pixels of 0..1
STD = $std
RESIZE = $resize  # how the training images came to height and width; proportions were not kept
PARAMETERS = $parameters
MACS = $macs  # multiply-accumulates for one image, in convolutions and matrix products

# The network as data, as `Layout` below describes it.
LAYOUT = $layout'''
BUILD = '''\
OPERATIONS = $operations


def build() -> FinalNetwork:
    """The network, untrained."""
    return FinalNetwork(
        LAYOUT,
        OPERATIONS,
$parts
    )'''
END = """\
if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a class may have a name it cannot print
    main(sys.argv[1:])
"""


def standalone(space: CellSpace, architecture: Architecture, facts: Mapping[str, Any]) -> str:
    """The text of `model.py` for a final network; its weights must be in the same folder.

    Args:
        facts: the constants of the file: `classes`, `mean`, `std`, `resize`, `parameters`, `macs`.

    Raises:
        UnportableError: the source of an operation is unavailable, or needs more than torch.
    """
    definitions = Definitions([*FACTS, "LAYOUT", "OPERATIONS", "build"])
    definitions.add(FinalNetwork)
    definitions.add(usage.main)
    plan = layout(space, architecture.choices)
    edges = [names for cell in plan["cells"].values() for names in cell["edges"].values()]
    operations = {
        name: operation(name, space, definitions) for name in sorted({n for e in edges for n in e})
    }
    parts = [
        f"        {name}={expression(constructor, definitions)},"
        for name, constructor in skeleton(space, affine=space.affine).items()
    ]
    texts = definitions.texts()
    network, use = texts.pop(FinalNetwork.__module__), texts.pop(usage.__name__)
    return "\n\n\n".join(
        [
            Template(HEAD).substitute(
                identity=architecture.identity,
                space=space.name,
                imports="\n".join(definitions.import_lines()),
                **constants(space, plan, facts),
            ),
            *texts.values(),
            network,
            Template(BUILD).substitute(
                operations=literal(operations, used=len("OPERATIONS = ")), parts="\n".join(parts)
            ),
            use,
            END,
        ]
    )


def constants(space: CellSpace, plan: Layout, facts: Mapping[str, Any]) -> dict[str, str]:
    """The source of the constants in `HEAD`."""
    return {
        "input_shape": literal(space.input_shape),
        "classes": packed(facts["classes"], used=len("CLASSES = ")),
        "mean": literal(tuple(facts["mean"]), used=len("MEAN = ")),
        "std": literal(tuple(facts["std"]), used=len("STD = ")),
        "resize": literal(facts["resize"]),
        "parameters": f"{facts['parameters']:_}",
        "macs": f"{facts['macs']:_}",
        "layout": literal(plan, used=len("LAYOUT = ")),
    }


def operation(name: str, space: CellSpace, definitions: Definitions) -> Code:
    """The constructor of an operation as source, which is added to the definitions."""
    try:
        return expression(space.operations[name], definitions)
    except ValueError as error:
        raise UnportableError(f"operation '{name}': {error}") from None


def expression(constructor: Any, definitions: Definitions) -> Code:
    """A class or function, or a partial of one with keyword arguments, as source."""
    if not isinstance(constructor, functools.partial):
        return Code(definitions.add(constructor))
    if constructor.args:
        raise UnportableError(f"its settings {constructor.args} have no names; give them by name")
    name = definitions.add(constructor.func)
    definitions.add_import("functools", "partial")
    settings = [f"{key}={literal(value)}" for key, value in constructor.keywords.items()]
    return Code(f"partial({', '.join([name, *settings])})")
