"""Does self-distillation flatten the search? Against DARTS at equal time, and against controls.

`python benchmarks/selfdistill_claim.py OUT [SEEDS] [ROWS] [OVERRIDES...]` runs each row (`all`, or
names joined by commas) with that many seeds (5), prints means, deviations, rank tests against
the first row, and all seeds. Rows: DARTS with 1.5 times the epochs (three teachers cost that),
self-distillation by steps and by epochs, and in place of teachers label smoothing, an averaged
teacher, a lower learning rate.
"""

import sys
from pathlib import Path

from rows import show, swept

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
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    wanted = sys.argv[3].split(",") if len(sys.argv) > 3 and sys.argv[3] != "all" else list(ROWS)
    common = ["task=search", f"search.epochs={EPOCHS}", "search.curvature=true", *sys.argv[4:]]
    runs = swept(Path(sys.argv[1]), {name: ROWS[name] for name in wanted}, seeds, common)
    show(runs, COLUMNS)


if __name__ == "__main__":
    main()
