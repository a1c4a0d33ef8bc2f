"""Rows of a table, each a multirun over seeds; columns with spread and paired differences."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archsmith.result.compare import paired, spread  # noqa: E402
from archsmith.result.runs import Run, columns, read_runs  # noqa: E402


def swept(
    out: Path, rows: Mapping[str, Sequence[str]], seeds: int, common: Sequence[str]
) -> dict[str, list[Run]]:
    """Runs every row (name -> overrides) below `out`; what is done already is not run again."""
    runs = {}
    for name, overrides in rows.items():
        command = [
            sys.executable, str(ROOT / "run.py"), "-m", f"seed={','.join(map(str, range(seeds)))}",
            f"hydra.sweep.dir={out / name}", *common, *overrides,
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        runs[name] = sorted(read_runs(out / name)[0], key=lambda run: run.seed)
    return runs


def show(runs: Mapping[str, list[Run]], wanted: Sequence[str] | None = None) -> None:
    """Prints, per column (wanted, or all) and row, mean and deviation, the difference to the first
    row with its 95% interval, and every seed."""
    baseline = next(iter(runs.values()))
    for column in wanted or columns([run for members in runs.values() for run in members]):
        print(f"\n{column}")
        for name, members in runs.items():
            found, difference = spread(members, column), paired(members, baseline, column)
            if found is None or difference is None:
                continue
            low, high = difference.interval()
            seen = " ".join(f"{value:.4g}" for value in found.values)
            print(
                f"  {name:20} {found.mean:9.3f} +- {found.deviation:.3f}   difference "
                f"{difference.mean:+.3f} [{low:+.3f}, {high:+.3f}]   seeds {seen}"
            )
