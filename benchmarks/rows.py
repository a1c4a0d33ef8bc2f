"""Rows of a table, each a multirun over seeds; columns with spread and rank tests."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archsmith.result.compare import differences, measurements, spreads  # noqa: E402
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
    """Prints, per column (wanted, or all) and row, mean and deviation, the shift against the first
    row with its corrected p-value, and every seed."""
    baseline, values = next(iter(runs)), measurements(runs)
    for column, part in values.groupby("column", sort=False):
        if wanted is not None and column not in wanted:
            continue
        print(f"\n{column}")
        tests = differences(part, [baseline]).set_index("runs")
        for row in spreads(part).to_dict("records"):
            name = row["runs"]
            seen = " ".join(f"{value:.4g}" for value in part[part.runs == name].value)
            shift, p = tests.loc[name, ["shift", "p"]] if name in tests.index else ("-", "-")
            print(f"  {name:20} {row['mean']:9.3f} +- {row['deviation']:.3f}   seeds {seen}")
            print(f"  {'':20} shift {shift}, p {p}")
