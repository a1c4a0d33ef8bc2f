"""Writes `model.py`: a final network as one readable file that needs only torch.

The network is data; the modules that read it are copied as they are.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archsmith.data import pixels
from archsmith.result.export import usage, usage_text
from archsmith.result.export.definitions import Definitions, UnportableError
from archsmith.result.export.literals import Code, literal, packed
from search_spaces.architecture import Architecture
from search_spaces.layers import laid_out
from search_spaces.space import Space
from supernets.builder import builder_of

TEMPLATE = Path(__file__).with_name("model.py.jinja")
# What the template defines.
NAMES = (
    *("INPUT_SHAPE", "CLASSES", "MEAN", "STD", "RESIZE", "CHARACTERS", "PARAMETERS", "MACS"),
    *("LAYOUT", "OPERATIONS", "build"),
)


def standalone(space: Space, architecture: Architecture, facts: Mapping[str, Any]) -> str:
    """The text of `model.py` for a final network; its weights must be in the same folder.

    Args:
        facts: the constants of the file: `classes`, `mean`, `std`, `resize`, `parameters`, `macs`;
            of a space that reads text, `characters`.

    Raises:
        UnportableError: the source of an operation is unavailable, or needs more than torch.
    """
    from jinja2 import StrictUndefined, Template

    definitions = Definitions(NAMES)
    plan = builder_of(space).blueprint(space, laid_out(architecture, space))
    network = definitions.add(plan.network)
    definitions.add((usage_text if space.reads_text else usage).main)
    table = _table(space, plan.operations, definitions)
    parts = {name: expression(part, definitions) for name, part in plan.parts.items()}
    texts = definitions.texts()
    modules = (usage, usage_text) if space.reads_text else (pixels, usage)
    used = [texts.pop(module.__name__) for module in modules]
    template = Template(
        TEMPLATE.read_text("utf-8"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return template.render(
        identity=architecture.identity,
        space=space,
        facts=facts,
        literal=literal,
        packed=packed,
        imports="\n".join(definitions.import_lines()),
        layout=plan.layout,
        kind=network,
        network=texts.pop(plan.network.__module__),
        usage="\n\n\n".join(used),
        operations="\n\n\n".join(texts.values()),
        table=table,
        parts=parts,
    )


def operation(name: str, space: Space, definitions: Definitions) -> Code:
    """The constructor of an operation as source, which is added to the definitions."""
    try:
        return expression(space.operations[name], definitions)
    except ValueError as error:
        raise UnportableError(f"operation '{name}': {error}") from None


def _table(
    space: Space, names: Sequence[str] | None, definitions: Definitions
) -> dict[str, Code] | None:
    """The operations of a network, which are added to the definitions."""
    return None if names is None else {n: operation(n, space, definitions) for n in names}


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
