"""Does self-distillation flatten the search? Against DARTS at equal time, and against controls.

`python benchmarks/selfdistill_claim.py OUT [SEEDS] [ROWS] [OVERRIDES...]` runs each row (`all`, or
names joined by commas) with that many seeds (5), prints means, deviations and paired differences to
the first row, and all seeds. Rows: DARTS with 1.5 times the epochs (three teachers cost that),
self-distillation by steps and by epochs, and in place of teachers label smoothing, an averaged
teacher, a lower learning rate.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engine.compare import paired, read_runs, spread  # noqa: E402

EPOCHS = 6
ROWS = {
    "darts_9_epochs": ["strategy=darts", f"search.epochs={3 * EPOCHS // 2}"],
    "sddarts_steps": ["strategy=sddarts"],
    "sddarts_epochs": ["strategy=sddarts", "strategy.losses.self_distillation.unit=epoch"],
    "label_smoothing": ["strategy=darts", "strategy/losses=[label_smoothing]"],
    "ema_teacher": ["strategy=darts", "strategy/losses=[ema_teacher]",
                    "strategy.losses.ema_teacher.decay=0.9"],
    "half_learning_rate": ["strategy=darts", "strategy.weight_optimizer.lr=0.0125"],
}  # fmt: skip
COLUMNS = (
    "alpha eigenvalue", "weight sharpness", "supernet accuracy", "discretised accuracy",
    "discretisation gap", "search seconds",
)  # fmt: skip


def main() -> None:
    out, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    wanted = sys.argv[3].split(",") if len(sys.argv) > 3 and sys.argv[3] != "all" else list(ROWS)
    runs = {}
    for name, overrides in ((name, ROWS[name]) for name in wanted):
        command = [
            sys.executable, str(ROOT / "run.py"), "-m", "task=search", f"search.epochs={EPOCHS}",
            "search.curvature=true", f"seed={','.join(map(str, range(seeds)))}",
            f"hydra.sweep.dir={out / name}", *overrides, *sys.argv[4:],
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        runs[name] = sorted(read_runs(out / name)[0], key=lambda run: run.seed)
    baseline = next(iter(runs.values()))
    for column in COLUMNS:
        print(f"\n{column}")
        for name, members in runs.items():
            found, difference = spread(members, column), paired(members, baseline, column)
            low, high = difference.interval()
            seen = " ".join(f"{value:.3f}" for value in found.values)
            print(
                f"  {name:20} {found.mean:9.3f} +- {found.deviation:.3f}   difference "
                f"{difference.mean:+.3f} [{low:+.3f}, {high:+.3f}]   seeds {seen}"
            )


if __name__ == "__main__":
    main()
