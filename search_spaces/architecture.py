"""The found result: which options each row of each choice keeps. A small, canonical, validated
JSON file.

Nothing in a file is ever evaluated or imported: a space and its options are looked up by name.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.space import Space

FORMAT = "archsmith.architecture/2"
FIRST = "archsmith.architecture/1"  # still read
DROPPED = ["none"]  # a row may be left out, or keep this
LARGEST = 10_000_000  # bytes of a file
Choices = Mapping[str, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Architecture:
    """`choices`: choice -> row, such as `"0-2"` -> kept options; an absent row is dropped.

    `space` holds the name and settings of the space it was found in. Two architectures are equal
    when format, space and choices are; `meta` (strategy, epoch, seed, macs, version) does not
    count.
    """

    space: Mapping[str, Any]
    choices: Choices
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls, space: Space, choices: Mapping[str, Mapping[str, Collection[str]]], **meta: Any
    ) -> "Architecture":
        """An architecture of this space; rows that keep a zero, or nothing, are left out.

        Raises ValueError where `choices` do not fit the space.
        """
        zeros = {
            name: {row.name: {o.name for o in row.options if o.kind == "zero"} for row in c.rows}
            for name, c in space.choices.items()
        }
        kept = {
            name: {
                row: tuple(sorted(left))
                for row, options in rows.items()
                if (left := set(options) - zeros.get(name, {}).get(row, set()))
            }
            for name, rows in choices.items()
        }
        found = cls(json.loads(json.dumps({"name": space.name, **space.settings})), kept, meta)
        found.check(space)
        return found

    def check(self, space: Space, where: str = "architecture") -> None:
        """Raises ValueError unless every choice, row and option is one of the space's."""
        if self.space.get("name") != space.name:
            raise ValueError(
                f"{where}: found in space '{self.space.get('name')}', but space={space.name} "
                f"was asked for; set space={self.space.get('name')}"
            )
        if set(self.choices) != set(space.choices):
            raise ValueError(
                f"{where}: choices {sorted(self.choices)} do not fit the space's "
                f"{sorted(space.choices)}; use the space it was found in"
            )
        for name, choice in space.choices.items():
            rows = {row.name: row for row in choice.rows}
            if choice.whole and (missing := sorted(set(rows) - set(self.choices[name]))):
                raise ValueError(
                    f"{where}: '{name}' keeps nothing in row {missing[0]}, but a network needs all "
                    f"{len(rows)} rows; set layers to that of the search"
                )
            for row, kept in self.choices[name].items():
                if row not in rows:
                    raise ValueError(
                        f"{where}: '{name}' has no row '{row}'; known: {', '.join(rows)}"
                    )
                if choice.single and len(kept) > 1:
                    raise ValueError(
                        f"{where}: '{name}' keeps {len(kept)} options in row {row}, expected one; "
                        "set strategy/discretisation=strongest"
                    )
                for option in kept:
                    if option not in rows[row].names:
                        raise ValueError(
                            f"{where}: unknown option '{option}' in row {row} of '{name}'; "
                            f"known: {', '.join(rows[row].names)}"
                        )

    def kept(self, space: Space) -> dict[str, list[list[int]]]:
        """Choice -> the positions of the options that each of its rows keeps."""
        found = {}
        for name, choice in space.choices.items():
            kept = self.choices[name]
            found[name] = [
                [o for o, option in enumerate(row.names) if option in kept.get(row.name, ())]
                for row in choice.rows
            ]
        return found

    @property
    def identity(self) -> str:
        """Eight hexadecimal digits over space and choices, whatever the format of the file."""
        content = {"format": FIRST, "space": self.space, "choices": self.choices}
        return hashlib.sha256(_canonical(content).encode()).hexdigest()[:8]

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
        """An architecture from decoded JSON, of this or the first format; raises ValueError, naming
        `where`."""
        if not isinstance(content, dict) or "format" not in content:
            raise ValueError(f'{where}: expected an architecture file with "format": "{FORMAT}"')
        if content["format"] not in (FORMAT, FIRST):
            raise ValueError(
                f"{where}: expected format '{FORMAT}' or '{FIRST}', found {content['format']!r}; "
                "it was written by another version, convert it or search again"
            )
        unknown = sorted(set(content) - {"format", "space", "choices", "meta"})
        if unknown:
            raise ValueError(
                f"{where}: unknown key '{unknown[0]}'; known: format, space, choices, meta"
            )
        if "_target_" in json.dumps(content):
            raise ValueError(
                f"{where}: '_target_' may not stand in an architecture file; nothing was loaded"
            )
        space = _space(content.get("space"), first=content["format"] == FIRST, where=where)
        choices, meta = content.get("choices"), content.get("meta", {})
        if not isinstance(choices, dict) or not isinstance(meta, dict):
            raise ValueError(f'{where}: "choices" and "meta" must be objects')
        for name, rows in choices.items():
            if not isinstance(rows, dict) or not all(
                isinstance(kept, list) and kept and all(isinstance(option, str) for option in kept)
                for kept in rows.values()
            ):
                raise ValueError(
                    f"{where}: choices of '{name}' must map a row to a list of option names, "
                    'such as {"0-2": ["sep_conv_3x3"]}'
                )
        kept = {
            name: {row: tuple(sorted(set(o))) for row, o in rows.items() if o != DROPPED}
            for name, rows in choices.items()
        }
        return cls(space, kept, meta)

    def to_json(self, *, meta: bool = True) -> str:
        settings = {key: value for key, value in self.space.items() if key != "name"}
        space = {"name": self.space["name"], "settings": settings}
        content: dict[str, Any] = {"format": FORMAT, "space": space, "choices": self.choices}
        return _canonical(content | ({"meta": self.meta} if meta else {}))


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, indent=2) + "\n"


def _space(content: Any, *, first: bool, where: str) -> dict[str, Any]:
    """Name and settings of a space. The first format held them side by side."""
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise ValueError(f'{where}: "space" must be an object with a "name"')
    if first:
        return content
    settings = content.get("settings")
    whole = set(content) == {"name", "settings"}
    if not isinstance(settings, dict) or "name" in settings or not whole:
        raise ValueError(f'{where}: "space" must hold "name" and "settings", an object')
    return {"name": content["name"], **settings}
