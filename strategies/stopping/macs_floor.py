"""Stops at a floor of multiply-accumulates and keeps stable architectures on the way. GOLD-NAS.

Source: Bi et al. 2020, arXiv:2007.03331, abstract (a Pareto series from one search); rules and
numbers of the public code, whose own count of multiply-accumulates never reaches its floor.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.settings import Share
from search_spaces.space import Space
from strategies.contracts import Stopping
from strategies.shares import real_options
from supernets.costs import candidate_macs

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network


class MacsFloor(Stopping):
    """Stops the search at a floor; a plateau is an architecture that is unchanged for some time.

    Keeps the architecture of every plateau when it ends (the old one, not its successor), and the
    search's last.

    Args:
        floor: stops when the alive candidates have at most this share of all candidates'
            multiply-accumulates. Stem, preprocessing and head do not count.
        stable: shortest length of a plateau, as a share of the search.

    Raises:
        ValueError: a share outside [0, 1); a floor that no architecture of the space can reach.
    """

    def __init__(self, *, floor: Share, stable: Share):
        self.floor, self.stable = floor, stable

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.space, self.macs = strategy.space, candidate_macs(net)
        self.standing = strategy.architecture()
        self.since, self.progress = 0.0, 0.0  # progress at its last change; at the last epoch's end
        least = least_macs(self.space, self.macs) / self._total()
        if least > self.floor:
            raise ValueError(
                f"floor: {self.floor} of the candidates' multiply-accumulates "
                f"cannot be reached, every node keeps an input; set it to {least:.3f} or more"
            )

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> bool:
        self.progress = progress
        alive = sum(int((self.macs[n] * on.cpu()).sum()) for n, on in strategy.alive.items())
        return alive / self._total() <= self.floor

    def keep(self, found: Architecture, *, last: bool) -> list[Architecture]:
        """The architectures to keep after an epoch that ended with `found`, largest first."""
        kept = []
        if found != self.standing:
            if self.progress - self.since > 0.999 * self.stable:
                kept.append(self.standing)
            self.standing, self.since = found, self.progress
        return [*kept, found] if last else kept

    def _total(self) -> int:
        return max(1, sum(int(table.sum()) for table in self.macs.values()))

    def state_dict(self) -> dict[str, Any]:
        return {
            "standing": self.standing.to_json(),
            "since": self.since,
            "progress": self.progress,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.standing = Architecture.parse(json.loads(state["standing"]), "checkpoint")
        self.since, self.progress = state["since"], state["progress"]


def least_macs(space: Space, macs: Mapping[str, Tensor]) -> int:
    """The multiply-accumulates if every node keeps only its cheapest candidate except `none`."""
    least = 0
    for name, choice in space.choices.items():
        if choice.keep is None:  # nodes may have no inputs
            continue
        priced = macs[name].masked_fill(~real_options(choice), macs[name].max() + 1)
        least += sum(int(priced[choice.into(target)].min()) for target in choice.targets)
    return least
