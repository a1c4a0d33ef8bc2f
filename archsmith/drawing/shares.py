"""How the gates of a row are shared out among its options, and how surely an option was chosen."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

THIN, THICK = 1.2, 5.0  # widths of a line in pixels, at margins of 0 or less and of 1

Gates = Mapping[str, Mapping[str, float]]  # row -> option -> gate


class Share(NamedTuple):
    """An option's share of its row's gates, and by how much that exceeds the largest share of the
    options that the row does not keep; the margin is negative where one of them has more."""

    share: float
    margin: float

    @property
    def line(self) -> float:
        """The width in pixels of the line that is drawn for the option."""
        return THIN + (THICK - THIN) * max(0.0, self.margin)

    @property
    def told(self) -> str:
        points = f"{100 * abs(self.margin):.1f} points"
        return (
            f"{100 * self.share:.1f}% of the gates, {points} "
            f"{'below' if self.margin < 0 else 'above'} the most that was dropped"
        )


def shares(gates: Mapping[str, float], kept: Collection[str]) -> dict[str, Share]:
    """The share of each option of a row, option -> gate; empty where all gates are 0."""
    values = {name: max(gate, 0.0) for name, gate in gates.items()}
    total = sum(values.values())
    if not total > 0:
        return {}
    dropped = max((values[name] for name in values if name not in kept), default=0.0)
    return {name: Share(value / total, (value - dropped) / total) for name, value in values.items()}
