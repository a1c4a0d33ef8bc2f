"""Architectures as texts of the field (DARTS genotype, NAS-Bench-201 string); the shipped files.

Texts are parsed, never evaluated. Sources: Liu et al. 2019, arXiv:1806.09055, and Dong & Yang 2020,
arXiv:2001.00326; the forms are those of their public code.
"""

import ast
import difflib
import re
from pathlib import Path
from typing import Any

from search_spaces.architecture import Architecture, Choices
from search_spaces.cells import Cell, CellSpace

Inputs = list[tuple[str, int]]  # (candidate, state it comes from)

CELLS = ("normal", "reduce")
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
FORM = "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=..., ...)"
PER_NODE = 2
LONGEST = 20_000  # characters; an input of a node needs about 20
PUBLISHED = Path(__file__).resolve().parent / "published"


def published(name: str) -> Path:
    """The shipped architecture file of that name. Raises ValueError, with the nearest name."""
    known = sorted(path.stem for path in PUBLISHED.glob("*.json"))
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"architecture: no published one is named {_short(name)}, expected one of the "
            f"{len(known)} in search_spaces/published; did you mean '{nearest}'?"
        )
    return PUBLISHED / f"{name}.json"


def to_genotype(architecture: Architecture) -> str:
    """The architecture as `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=..., ...)`.

    Two inputs a node, by predecessor; a node with fewer is filled up with `none` from its first
    unused predecessors. Raises ValueError for another space, or a node with more than two inputs.
    """
    _expect_space(architecture.space["name"], "darts", "genotype")
    _expect_cells(architecture.choices)
    stop = 2 + architecture.space["nodes"]
    parts = []
    for kind in CELLS:
        inputs = [
            pair for node in range(2, stop) for pair in _inputs(architecture.choices, kind, node)
        ]
        parts.append(f"{kind}={inputs}, {kind}_concat=range(2, {stop})")
    return f"Genotype({', '.join(parts)})"


def from_genotype(text: str, space: CellSpace) -> Architecture:
    """The architecture of this space that the text of a DARTS genotype names; a `none` is dropped.

    Raises ValueError for anything but that form, an unknown candidate, an input that does not come
    before its node, or a concatenation that is not of all nodes.
    """
    _expect_space(space.name, "darts", "genotype")
    _expect_cells(space.groups)
    fields = _fields(text)
    choices = {}
    for kind in CELLS:
        cell = space.groups[kind]
        choices[kind] = _kept(_pairs(fields[kind], kind), kind, cell)
        _check_concat(fields[f"{kind}_concat"], f"{kind}_concat", cell)
    return Architecture.of(space, choices)


def to_nasbench201(architecture: Architecture) -> str:
    """The architecture as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+...`; a dropped edge is `none`.

    Raises ValueError for another space, or an edge that keeps several candidates.
    """
    _expect_space(architecture.space["name"], "nasbench201", "NAS-Bench-201 string")
    kept, rows = architecture.choices["cell"], []
    for target in range(1, 1 + architecture.space["nodes"]):
        row = "|"
        for source in range(target):
            names = kept.get(f"{source}-{target}", ("none",))
            if len(names) > 1:
                raise ValueError(
                    f"NAS-Bench-201 string: edge {source}-{target} keeps {', '.join(names)}, "
                    "expected one candidate; set strategy/discretisation=strongest"
                )
            row += f"{names[0]}~{source}|"
        rows.append(row)
    return "+".join(rows)


def to_nni(architecture: Architecture) -> dict[str, Any]:
    """The choices as `freeze` of NNI's model spaces takes them (nni 3.0, `nni.nas.hub.pytorch`).

    `DARTS`: `{normal,reduce}/op_{node}_{slot}` and `.../input_{node}_{slot}`, a list of one input;
    `NasBench201`: `cell/{source}_{target}`, convolutions without their `nor_`.

    Raises ValueError for what those spaces do not hold.
    """
    name, nodes = architecture.space["name"], architecture.space.get("nodes")
    if name == "nasbench201" and nodes == 3:
        rows = [row.strip("|").split("|") for row in to_nasbench201(architecture).split("+")]
        pairs = [(pair.split("~"), target) for target, row in enumerate(rows, 1) for pair in row]
        return {f"cell/{j}_{i}": op.removeprefix("nor_") for (op, j), i in pairs}
    if name != "darts" or nodes != 4:
        raise ValueError(
            f"NNI form: there is one for the spaces darts with 4 nodes and nasbench201 with 3, "
            f"found {name} with {nodes}"
        )
    _expect_cells(architecture.choices)
    found: dict[str, Any] = {}
    for kind in CELLS:
        for node in range(2, 2 + nodes):
            for slot, (op, j) in enumerate(_inputs(architecture.choices, kind, node)):
                if op == "none":
                    raise ValueError(
                        f"NNI form: node {node} of '{kind}' has fewer than two inputs, and "
                        "nni.nas.hub has no 'none'"
                    )
                if op == "noise":
                    raise ValueError(
                        f"NNI form: node {node} of '{kind}' keeps 'noise', which nni.nas.hub lacks"
                    )
                found |= {f"{kind}/op_{node}_{slot}": op, f"{kind}/input_{node}_{slot}": [j]}
    return found


def from_nasbench201(text: str, space: CellSpace) -> Architecture:
    """The architecture of this space that a NAS-Bench-201 string names; `none` drops its edge.

    Raises ValueError for anything but that form, a wrong number of nodes, or an unknown candidate.
    """
    _expect_space(space.name, "nasbench201", "NAS-Bench-201 string")
    rows = text.strip().split("+")
    nodes = space.groups["cell"].nodes
    if len(rows) != nodes:
        raise ValueError(
            f"NAS-Bench-201 string: {len(rows)} nodes in {_short(text)}, expected {nodes} joined "
            f"by '+'; correct the text or set the space's nodes to {len(rows)}"
        )
    kept: dict[str, tuple[str, ...]] = {}
    for target, row in enumerate(rows, 1):
        match = re.fullmatch(r"\|" + "".join(rf"(\w+)~{source}\|" for source in range(target)), row)
        if match is None:
            expected = "|" + "".join(f"<candidate>~{source}|" for source in range(target))
            raise ValueError(
                f"NAS-Bench-201 string: node {target} is {_short(row)}, expected {expected}; "
                "name one candidate for every earlier node, 'none' for no edge"
            )
        names = enumerate(match.groups())
        kept |= {f"{source}-{target}": (name,) for source, name in names if name != "none"}
    return Architecture.of(space, {"cell": kept})


def _expect_space(found: str, expected: str, form: str) -> None:
    if found != expected:
        raise ValueError(
            f"{form}: found space '{found}', expected '{expected}'; "
            f"set space={expected}, or use the architecture file"
        )


def _expect_cells(groups: Any) -> None:
    if set(groups) != set(CELLS):
        raise ValueError(
            f"genotype: groups {', '.join(groups)} found, expected one normal and one reduce cell; "
            "set the space's share_alphas to true, or use the architecture file"
        )


def _inputs(choices: Choices, kind: str, target: int) -> Inputs:
    """Two (candidate, source) of a node, by source."""
    kept = choices[kind]
    found = [
        (name, j) for j in range(target) for name in kept.get(f"{j}-{target}", ()) if name != "none"
    ]
    if len(found) > PER_NODE:
        raise ValueError(
            f"genotype: node {target} of '{kind}' has {len(found)} inputs, expected at most "
            f"{PER_NODE}; set strategy/discretisation=strongest, or use the architecture file"
        )
    unused = [("none", j) for j in range(target) if j not in [source for _, source in found]]
    return sorted(found + unused[: PER_NODE - len(found)], key=lambda pair: pair[1])


def _fields(text: str) -> dict[str, str]:
    """The texts of the four arguments; `ast.parse` builds a syntax tree and runs nothing."""
    text = text.strip()
    try:
        call = ast.parse(text[: LONGEST + 1], mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    known = (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Genotype"
    )
    if not isinstance(call, ast.Call) or not known or len(text) > LONGEST:
        raise ValueError(
            f"genotype: found {_short(text)}, expected {FORM}; give that one expression"
        )
    names = [str(word.arg) for word in call.keywords]  # `**x` has no name
    if call.args or sorted(names) != sorted(FIELDS):
        raise ValueError(
            f"genotype: found {len(call.args)} unnamed arguments and {names}, "
            f"expected {', '.join(FIELDS)}; give each once, by name"
        )
    return {str(word.arg): ast.get_source_segment(text, word.value) or "" for word in call.keywords}


def _literal(text: str) -> object:
    """The value of a Python literal, None for any other text."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _pairs(text: str, kind: str) -> Inputs:
    match _literal(text):
        case [*pairs]:
            found = [(p[0], p[1]) for p in pairs if isinstance(p, list | tuple) and len(p) == 2]
            if len(found) == len(pairs) and all(
                isinstance(name, str) and type(source) is int for name, source in found
            ):
                return found
    raise ValueError(
        f"genotype: {kind} is {_short(text)}, expected [('sep_conv_3x3', 0), ...]; correct the text"
    )


def _check_concat(text: str, name: str, cell: Cell) -> None:
    bounds = re.fullmatch(r"range\(\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\)", text)
    found = range(int(bounds[1]), int(bounds[2])) if bounds else _literal(text)
    if found != cell.targets and found not in (list(cell.targets), tuple(cell.targets)):
        raise ValueError(
            f"genotype: {name} is {_short(text)}, expected range({cell.targets.start}, "
            f"{cell.targets.stop}); cells of this space join all their nodes"
        )


def _kept(pairs: Inputs, kind: str, cell: Cell) -> dict[str, tuple[str, ...]]:
    """Edge -> candidates of one cell, without `none`."""
    if len(pairs) != PER_NODE * cell.nodes:
        raise ValueError(
            f"genotype: {kind} has {len(pairs)} inputs, expected {PER_NODE * cell.nodes}, two a "
            f"node; correct the text, or set the space's nodes to its number of nodes"
        )
    kept: dict[str, tuple[str, ...]] = {}
    for i, (name, source) in enumerate(pairs):
        target = cell.inputs + i // PER_NODE
        if not 0 <= source < target:
            raise ValueError(
                f"genotype: {kind} joins state {source} to node {target}, expected a state from "
                f"0 to {target - 1}; correct the text"
            )
        edge = f"{source}-{target}"
        if name in kept.get(edge, ()):
            raise ValueError(
                f"genotype: {kind} names '{name}' twice on edge {edge}, expected two different "
                "candidates or edges; an architecture cannot hold one twice"
            )
        if name != "none":
            kept[edge] = (*kept.get(edge, ()), name)
    return kept


def _short(text: str) -> str:
    """The text on one line of at most about 60 characters, in quotes."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
