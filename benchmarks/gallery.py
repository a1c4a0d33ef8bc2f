"""Writes docs/gallery.md and copies its drawings, from the folders of finished runs.

`python benchmarks/gallery.py [DATA=NAME ...] RUN ...`: in the order given; NAME is shown instead of
the name that the configuration gives the data. An accuracy looked up in a benchmark's table goes
before a test accuracy.
"""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parents[1] / "docs"
INTRO = """\
# Found cells

Cells as searches left them, one seed each: this shows what a search ends with, not which strategy
is best ([results](results.md) compares strategies). The searches on digits are short, two epochs,
and a random cell does as well there. Those on NAS-Bench-201 take 150 s of processor time on images
of CIFAR-10; the accuracy of their cells is that of the benchmark's table. Searches that collapsed
are shown, too.

"""
ENTRY = """\
## {strategy}, space {space}

{data}, seed {seed}: **{accuracy}**{size}; {search}.{collapsed}

{drawings}

```sh
{command}
```
"""


def entry(folder: Path, names: Mapping[str, str]) -> str:
    """A run as a part of the page; copies its drawings."""
    told = json.loads((folder / "results.json").read_text())
    kind, copies = f"{told['strategy']}_{told['space']}", []
    for drawing in sorted(folder.glob("cell_*.svg")):
        cell = drawing.stem.removeprefix("cell_")
        copy = DOCS / "gallery" / f"{kind}_{cell}.svg"
        shutil.copy(drawing, copy)
        copies.append(f"![{told['strategy']}: {cell}](gallery/{copy.name})")
    parameters, seconds = told["parameters"], told["cpu_seconds"].get("search", 0)
    return ENTRY.format(
        **{name: told[name] for name in ("strategy", "space", "seed")},
        data=names.get(told["data"], told["data"]),
        accuracy=accuracy(told),
        size=f", {parameters:,} parameters" if parameters else "",
        search=f"{seconds:.0f} processor seconds of search" if seconds >= 1 else "no search",
        collapsed=" The search collapsed: no kept operation has parameters."
        if (told["degenerate"] or "").startswith("collapse")
        else "",
        drawings=" ".join(copies),
        command=command(folder, told["strategy"]),
    )


def accuracy(told: Mapping[str, Any]) -> str:
    """The accuracy in words."""
    table = told["benchmark"]
    if table is not None:
        return f"{table['accuracy']:.2f}% on CIFAR-10, rank {table['rank']:,} of {table['of']:,}"
    low, high = told["test_interval"]
    share = f"{100 * told['test_accuracy']:.2f}%"
    return f"{share} of {told['test_images']} test images ({100 * low:.1f} to {100 * high:.1f})"


def command(folder: Path, strategy: str) -> str:
    """The command of a run; files that it names, by their last part."""
    words = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    own = [word for word in words if not word.startswith("strategy=")]
    plain = [re.sub(r"=/(?:.*/)?", "=", word) for word in own]
    return shlex.join(["python", "run.py", f"strategy={strategy}", *plain])


def main(words: list[str]) -> None:
    names = dict(word.split("=", 1) for word in words if "=" in word)
    shutil.rmtree(DOCS / "gallery", ignore_errors=True)
    (DOCS / "gallery").mkdir()
    entries = [entry(Path(word), names) for word in words if "=" not in word]
    (DOCS / "gallery.md").write_text(INTRO + "\n".join(entries), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
