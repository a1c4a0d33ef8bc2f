"""The found result: which candidates each edge of each group keeps. A small, canonical, validated
JSON file.

Nothing in a file is ever evaluated or imported: a space and its candidates are looked up by name.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.space import Cell, Space

FORMAT = "archsmith.architecture/1"
LARGEST = 10_000_000  # bytes of a file
Choices = Mapping[str, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Architecture:
    """`choices`: group -> edge `"source-target"` -> kept candidates; an absent edge is dropped.

    `space` holds the name and settings of the space it was found in. Two architectures are equal
    when format, space and choices are; `meta` (strategy, epoch, seed, macs, version) does not
    count.
    """

    space: Mapping[str, Any]
    choices: Choices
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls, space: Space, choices: Mapping[str, Mapping[str, Any]], **meta: Any
    ) -> "Architecture":
        """An architecture of this space. Raises ValueError where `choices` do not fit it."""
        canonical = {
            group: {
                edge: tuple(sorted(set(names)))
                for edge, names in edges.items()
                if set(names) - {"none"}
            }
            for group, edges in choices.items()
        }
        found = cls(json.loads(json.dumps({"name": space.name, **space.settings})), canonical, meta)
        found.check(space)
        return found

    def check(self, space: Space, where: str = "architecture") -> None:
        """Raises ValueError unless every group, edge and candidate is one of the space's."""
        if self.space.get("name") != space.name:
            raise ValueError(
                f"{where}: found in space '{self.space.get('name')}', but space={space.name} "
                "was asked for; "
                f"set space={self.space.get('name')}"
            )
        if set(self.choices) != set(space.groups):
            raise ValueError(
                f"{where}: groups {sorted(self.choices)} do not fit the space's "
                f"{sorted(space.groups)}; "
                "use the space it was found in"
            )
        for group, cell in space.groups.items():
            edges = {edge.name: edge for edge in cell.edges}
            for name, kept in self.choices[group].items():
                if name not in edges:
                    raise ValueError(
                        f"{where}: '{group}' has no edge '{name}'; known: {', '.join(edges)}"
                    )
                for candidate in kept:
                    if candidate not in edges[name].candidates:
                        raise ValueError(
                            f"{where}: unknown candidate '{candidate}' on edge {name} of "
                            f"'{group}'; "
                            f"known: {', '.join(edges[name].candidates)}"
                        )

    @property
    def identity(self) -> str:
        """Eight hexadecimal digits over format, space and choices."""
        return hashlib.sha256(self.to_json(meta=False).encode()).hexdigest()[:8]

    def save(self, path: Path) -> None:
        """Writes the canonical JSON: sorted keys, so equal architectures give equal bytes.

        An interrupted write leaves the file as it was.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_text(self.to_json(meta=True), encoding="utf-8")
        os.replace(beside, path)

    @classmethod
    def load(cls, path: Path) -> "Architecture":
        """Reads a file and validates its form, not yet against a space. Raises ValueError."""
        try:
            size = Path(path).stat().st_size
            if size > LARGEST:
                raise ValueError(f"{size} bytes, expected at most {LARGEST}")
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"architecture: no file '{path}'; give a file or a run directory"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a readable JSON file ({error})") from None
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Any, where: str) -> "Architecture":
        """An architecture from decoded JSON. Raises ValueError, naming `where`."""
        if not isinstance(content, dict) or "format" not in content:
            raise ValueError(f'{where}: expected an architecture file with "format": "{FORMAT}"')
        if content["format"] != FORMAT:
            raise ValueError(
                f"{where}: expected format '{FORMAT}', found {content['format']!r}; "
                "it was written by another version, convert it or search again"
            )
        unknown = sorted(set(content) - {"format", "space", "choices", "meta"})
        if unknown:
            raise ValueError(
                f"{where}: unknown key '{unknown[0]}'; known: format, space, choices, meta"
            )
        space, choices, meta = content.get("space"), content.get("choices"), content.get("meta", {})
        if not isinstance(space, dict) or not isinstance(space.get("name"), str):
            raise ValueError(f'{where}: "space" must be an object with a "name"')
        if "_target_" in json.dumps(content):
            raise ValueError(
                f"{where}: '_target_' may not stand in an architecture file; nothing was loaded"
            )
        if not isinstance(choices, dict) or not isinstance(meta, dict):
            raise ValueError(f'{where}: "choices" and "meta" must be objects')
        for group, edges in choices.items():
            if not isinstance(edges, dict) or not all(
                isinstance(kept, list) and kept and all(isinstance(name, str) for name in kept)
                for kept in edges.values()
            ):
                raise ValueError(
                    f"{where}: choices of '{group}' must map an edge to a list of candidate names, "
                    'such as {"0-2": ["sep_conv_3x3"]}'
                )
        canonical = {
            group: {
                edge: tuple(sorted(set(kept)))
                for edge, kept in edges.items()
                if set(kept) - {"none"}
            }
            for group, edges in choices.items()
        }
        return cls(space, canonical, meta)

    def to_json(self, *, meta: bool = True) -> str:
        content: dict[str, Any] = {"format": FORMAT, "space": self.space, "choices": self.choices}
        if meta:
            content["meta"] = self.meta
        return json.dumps(content, sort_keys=True, indent=2) + "\n"


def reachable(cell: Cell, kept: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the cell's output depends on its inputs through the kept edges."""
    alive = set(range(cell.inputs))
    for edge in cell.edges:  # node-major: sources come before targets
        if edge.source in alive and edge.name in kept:
            alive.add(edge.target)
    outputs = cell.targets if cell.output == "concat" else [cell.targets[-1]]
    return any(node in alive for node in outputs)
