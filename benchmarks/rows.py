"""Rows of a table, each a multirun over seeds; columns with spread and paired differences."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archsmith.result.compare import measurements, spreads  # noqa: E402
from archsmith.result.runs import FinishedRun, read_runs  # noqa: E402


def swept(
    out: Path, rows: Mapping[str, Sequence[str]], seeds: int, common: Sequence[str]
) -> dict[str, list[FinishedRun]]:
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


def show(runs: Mapping[str, list[FinishedRun]], wanted: Sequence[str] | None = None) -> None:
    """Prints, per column (wanted, or all) and row, mean and deviation, the difference to the first
    row with its 95% interval, and every seed."""
    baseline, values = next(iter(runs)), measurements(runs)
    for column, rows in spreads(values, [baseline]).groupby("column", sort=False):
        if wanted is not None and column not in wanted:
            continue
        print(f"\n{column}")
        for row in rows.to_dict("records"):
            mine = values[(values.column == column) & (values.runs == row["runs"])]
            seen = " ".join(f"{value:.4g}" for value in mine.value)
            difference, low, high = (
                row[f"minus {baseline}{end}"] for end in ("", ", low", ", high")
            )
            print(
                f"  {row['runs']:20} {row['mean']:9.3f} +- {row['deviation']:.3f}   difference "
                f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]   seeds {seen}"
            )
