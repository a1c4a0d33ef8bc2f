"""Seconds, peak memory and accuracy of a whole search in each form.

`python benchmarks/search_cost.py [overrides ...]` runs `run.py task=search` (by default the demo's
search on digits) once per form, each in a fresh process and folder, one after the other.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search_spaces.architecture import Architecture  # noqa: E402

FORMS = ["reference", "fused", "auto"]


def searched(form: str, overrides: list[str]) -> dict[str, object]:
    """`results.json` of a search in this form, and the identity of the architecture."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "run.py", "task=search", f"runtime={form}", *overrides]
        subprocess.run(
            [*command, f"hydra.run.dir={folder}"],
            cwd=ROOT, check=True, capture_output=True, env=dict(os.environ),
        )  # fmt: skip
        results = json.loads((Path(folder) / "results.json").read_text())
        found = Architecture.load(Path(folder) / "architecture.json")
        return results | {"architecture": found.identity}


def main() -> None:
    overrides = sys.argv[1:]
    print(f"run.py task=search {' '.join(overrides)}\n")
    print("| form | s | peak MiB of the process | supernet accuracy | architecture |")
    print("|---|---|---|---|---|")
    for form in FORMS:
        found = searched(form, overrides)
        print(
            f"| {form} | {found['seconds']['search']:.1f} "
            f"| {found['peak_memory_bytes']['search'] / 2**20:.0f} "
            f"| {found['supernet_accuracy']:.3f} | {found['architecture']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
