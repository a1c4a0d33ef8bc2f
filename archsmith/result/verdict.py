"""What a comparison finds, in sentences."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from archsmith.result.random_drawing import RandomDrawing
from archsmith.result.runs import BASELINES
from archsmith.result.statistics import LEVEL, enough, holm

NAMED = 6  # groups that a sentence lists; of more, it counts the rest
Rows = Sequence[Mapping[str, Any]]  # of spreads, with differences to baselines


class Standing(NamedTuple):
    """Groups by how they stand to a baseline; `few` have too few seeds to tell."""

    better: list[str]
    worse: list[str]
    like: list[str]
    few: list[str]


def standing(rows: Rows, baseline: str) -> Standing:
    """The groups of one column of accuracies, without those that are not compared with it."""
    found = Standing([], [], [], [])
    for row in rows:
        shift, p = (row.get(f"{name}, {baseline}", math.nan) for name in ("shift", "p"))
        if math.isnan(shift):
            continue
        if math.isnan(p):
            found.few.append(row["runs"])
        elif p > LEVEL:
            found.like.append(row["runs"])
        elif shift > 0:
            found.better.append(row["runs"])
        else:
            found.worse.append(row["runs"])
    return found


def verdict(rows: Rows, drawn: RandomDrawing | None = None) -> list[str]:
    """Sentences on one column of accuracies in %, the finding first; names are in the order of the
    rows."""
    if not rows:
        return ["No run has an accuracy to compare."]
    highest = max(rows, key=lambda row: row["mean"])
    seeds = f"{highest['n']} seed{'s' if highest['n'] > 1 else ''}"
    of = f" of {len(rows)}" if len(rows) > 1 else ""
    return [
        *(_beside_drawing(rows, drawn) if drawn else []),
        *_beside_baselines(rows),
        f"The highest mean{of} is {highest['mean']:.2f}%, by {highest['runs']} ({seeds}).",
        *(_beside_named_cells(rows, drawn) if drawn else []),
    ]


def _beside_baselines(rows: Rows) -> list[str]:
    """A sentence for each baseline, and one on those that have too few seeds."""
    found = {name: standing(rows, name) for name in BASELINES}
    found = {name: one for name, one in found.items() if any(one)}
    if len(rows) == 1:
        return ["There is no second strategy among these runs to compare it with."]
    if not found:
        return [
            f"None of them is a baseline ({' or '.join(BASELINES)}), so nothing was tested; add "
            "strategy=random with the same settings."
        ]
    said = []
    for name, one in found.items():
        p = {row["runs"]: row.get(f"p, {name}", math.nan) for row in rows}
        parts = [
            _are(one.better, f"better than {name} (rank test, corrected {_most(p, one.better)})"),
            _are(one.worse, f"worse than {name} ({_most(p, one.worse)})"),
            _like(one.like, name),
        ]
        said.append("; ".join(part for part in parts if part))
    tests = sum(len(group) for one in found.values() for group in one)
    few = {name for one in found.values() for name in one.few}
    said = [f"{line}." for line in said if line]
    return [*said, *_too_few(rows, few, list(found), tests)]


def _too_few(rows: Rows, few: Collection[str], baselines: list[str], tests: int) -> list[str]:
    """What may be said of groups with few seeds, and how many would be enough."""
    seeds = [row["n"] for row in rows if row["runs"] in few]
    if not seeds:
        return []
    each = f"{min(seeds)} to {max(seeds)}" if min(seeds) < max(seeds) else f"{max(seeds)}"
    are = "seed each is" if each == "1" else "seeds each are"
    every = len({*few, *baselines}) == len(rows)
    names = [row["runs"] for row in rows if row["runs"] in few]
    who = _are(["any strategy"] if every else names, "better or worse than")
    return [
        f"{each} {are} too few to say that {who} {' or '.join(baselines)}: even results without "
        f"overlap could be chance. "
        f"{enough(tests)} each are enough for {tests} test{'s' if tests > 1 else ''}."
    ]


def _beside_drawing(rows: Rows, drawn: RandomDrawing) -> list[str]:
    """Who is better than random drawing from the table; corrected by Holm."""
    corrected = dict(zip(drawn.chances, holm([*drawn.chances.values()]), strict=True))
    names = [row["runs"] for row in rows if row["runs"] in corrected]
    like = [name for name in names if corrected[name] > LEVEL]
    better = [name for name in names if corrected[name] <= LEVEL]
    parts = [
        _are(
            better,
            f"better than drawing from the table's {drawn.size:,} architectures at random "
            f"(corrected {_most(corrected, better)})",
        ),
        _like(like, "random drawing"),
    ]
    said = "; ".join(part for part in parts if part)
    return [f"{said}."] if said else []


def _beside_named_cells(rows: Rows, drawn: RandomDrawing) -> list[str]:
    """Who has a higher mean than the best kind of cells that take no search."""
    if not drawn.named:
        return []
    said, cells = max(reversed(drawn.named.items()), key=lambda one: one[1].mean)
    what = f"the {said}" if cells.number == 1 else f"the {cells.number} {said} in the mean"
    above = [row["runs"] for row in rows if row["mean"] > cells.mean]
    who = listed(above) if above else "None"
    have = "have" if len(above) > 1 else "has"
    return [f"{who} {have} a higher mean than {what}, {cells.mean:.2f}%, which takes no search."]


def listed(names: Sequence[str]) -> str:
    """`a, b and c`; of many names the first ones and the number of the others."""
    if len(names) > NAMED:
        names = [*names[: NAMED - 1], f"{len(names) - NAMED + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _are(names: Sequence[str], what: str) -> str:
    return f"{listed(names)} {'is' if len(names) == 1 else 'are'} {what}" if names else ""


def _like(names: Sequence[str], baseline: str) -> str:
    return f"{listed(names)} cannot be distinguished from {baseline}" if names else ""


def _most(p: Mapping[str, float], names: Sequence[str]) -> str:
    """The largest p-value of these."""
    found = max((p[name] for name in names), default=math.nan)
    return f"p {'=' if len(names) == 1 else 'at most'} {found:.2g}"
