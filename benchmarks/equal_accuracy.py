"""The forms of a supernet end in equal accuracy: searched and retrained with each, over seeds.

`python benchmarks/equal_accuracy.py OUT [SEEDS] [OVERRIDES...]` runs `run.py` in the reference, the
fused and the native form with that many seeds (3), and prints accuracies with their spread and the
paired difference to the reference.
"""

import sys
from pathlib import Path

from rows import show, swept

FORMS = {form: [f"runtime={form}"] for form in ("reference", "fused", "native")}


def main() -> None:
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    show(swept(Path(sys.argv[1]), FORMS, seeds, sys.argv[3:]))


if __name__ == "__main__":
    main()
